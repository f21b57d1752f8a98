"""The peer of the PPO speed benchmark: TRL's PPOTrainer, in its own virtual environment.

One iteration of TRL is: generation for all prompts (KV cache, the sampler's scores kept as the old
log-probabilities), one forward pass of the reference model, the value model and the reward model
each, advantages, then epochs x minibatches of forward and backward through policy and value model
with AdamW on both. As TRL demands, the value model is a second model of the policy's size. What
could slow TRL down without being part of the comparison is taken away:

- the reward model is the smallest legal one (one layer of width 32);
- saving, evaluation, sample generations, progress bars, reports and gradient checkpointing are off;
- one micro-batch a minibatch: the device batch holds the whole rollout, which TRL cuts into
  minibatches. (With a device batch of one minibatch and accumulation steps instead, Accelerate
  holds back the optimiser until the last of them.)

Float32 on the CPU. Without an end token every response has all its tokens; with one TRL generates
until the last response has ended, and computes what is after the end of the others like all else.

Prints one line of JSON, a `Measurement`; see `benchmarks.ppo_speed`.
"""

from __future__ import annotations

from datasets import Dataset  # type: ignore[import-not-found]  # in TRL's environment alone
from transformers import (
    PrinterCallback,
    Qwen2ForSequenceClassification,
)
from trl.experimental.ppo import (  # type: ignore[import-not-found]  # as above
    PPOConfig,
    PPOTrainer,
)

from benchmarks import ppo_speed_model as work
from benchmarks.trl_measure import main


def build_arguments(output_dir: str, num_iterations: int, lengths: work.Work) -> PPOConfig:
    """Return TRL's configuration of the shared work."""
    return PPOConfig(
        output_dir=output_dir,
        per_device_train_batch_size=work.NUM_PROMPTS,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=work.NUM_PROMPTS,
        num_mini_batches=work.NUM_MINIBATCHES,
        num_ppo_epochs=work.NUM_EPOCHS,
        total_episodes=work.NUM_PROMPTS * num_iterations,
        response_length=lengths.response_length,
        stop_token=None if lengths.end_probability is None else "eos",
        temperature=work.TEMPERATURE,
        learning_rate=work.LEARNING_RATE,
        kl_coef=work.KL_COEF,
        num_sample_generations=0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def build_trainer(output_dir: str, num_iterations: int, lengths: work.Work) -> PPOTrainer:
    """Return TRL's trainer with the four models it demands."""
    policy, reference = work.build_model(lengths), work.build_model(lengths)
    tokenizer = work.build_tokenizer()
    texts = work.make_prompts(lengths)
    prompts = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]
    trainer = PPOTrainer(
        args=build_arguments(output_dir, num_iterations, lengths),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=Qwen2ForSequenceClassification(
            work.build_config(hidden_size=32, num_layers=1)
        ),
        value_model=Qwen2ForSequenceClassification(work.build_config()),
        train_dataset=Dataset.from_list(prompts),
    )
    trainer.remove_callback(PrinterCallback)  # it prints metrics where the result belongs
    return trainer


if __name__ == "__main__":
    main("Measure one process of TRL's PPOTrainer.", build_trainer, calls=1)
