"""Chat templates: render messages to the text that the policy continues.

`plain` joins the messages and marks no turn. `chatml` is the format of Qwen2.5 without its default
system message. `qwen3` adds the thinking switch of Qwen3. `tokenizer:NAME` is the template that a
Hugging Face tokenizer brings along. All but `plain` end where the assistant's turn begins.

A template can show tools in the system message, in Qwen's words, and render what answers a finished
turn: what it returns is appended to the ids of the dialogue, which are never rendered again.

A message must not be able to end its own turn and speak for somebody else, so markers of turns
inside a message get a space: `<|im_end|>` becomes `<| im_end |>`, which no tokenizer takes for the
marker. Any other text comes through unchanged.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from textgym.errors import ConfigError, MissingExtraError, PromptError, did_you_mean
from textgym.prompt import Message

_MARKER = re.compile(r"<\|(\w+)\|>")
_ASSISTANT = "<|im_start|>assistant\n"
_NO_THINKING = "<think>\n\n</think>\n\n"
_TOKENIZER = "tokenizer:"
_TOOLS_BEFORE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_TOOLS_AFTER = """
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
_SAID = "{a turn of the policy}"  # rendered to see what follows one

ToolSchemas: TypeAlias = Sequence[Mapping[str, Any]]
"""Tools in the form of `textgym.Tool.function_schema`."""


class Template(Protocol):
    """Renders messages; `think` matters only where `has_thinking`."""

    has_thinking: bool
    marks_turns: bool
    """Whether a turn has a form of its own, in which tools and their answers can be shown."""

    def render(
        self, messages: Sequence[Message], *, think: bool = True, tools: ToolSchemas = ()
    ) -> str:
        """Return the text that the policy continues."""

    def reply(self, messages: Sequence[Message], *, think: bool = True, ended: bool = True) -> str:
        """Return what follows a turn of the policy: messages, and the beginning of its next turn.

        Args:
            messages: at least one.
            think: whether the next turn thinks.
            ended: whether the turn has its end token already.
        """


def make_template(name: str) -> Template:
    """Return a template by name: `plain`, `chatml`, `qwen3` or `tokenizer:<path or hub id>`."""
    if name.startswith(_TOKENIZER):
        return _tokenizer_template(name.removeprefix(_TOKENIZER))
    if name not in _BY_NAME:
        raise ConfigError(
            f"no template named '{name}'.{did_you_mean(name, _BY_NAME)} Templates: "
            f"{', '.join(_BY_NAME)}, or tokenizer:<path or hub id> for a tokenizer's own"
        )
    return _BY_NAME[name]


def neutralise(content: str) -> str:
    """Return a message's content with a space in everything that could mark a turn."""
    return _MARKER.sub(r"<| \1 |>", content) if "<|" in content else content


class _Plain:
    """The contents, separated by empty lines; tools come first, one a line."""

    has_thinking = False
    marks_turns = False

    def render(
        self, messages: Sequence[Message], *, think: bool = True, tools: ToolSchemas = ()
    ) -> str:
        contents = [message.content for message in messages]
        return "\n\n".join([_plain_tools(tools), *contents] if tools else contents)

    def reply(self, messages: Sequence[Message], *, think: bool = True, ended: bool = True) -> str:
        return "".join(f"\n{neutralise(message.content)}" for message in messages) + "\n"


class _ChatML:
    """Qwen2.5: `<|im_start|>role`, the content, `<|im_end|>`; tool results are a user's turn."""

    has_thinking = False
    marks_turns = True

    def render(
        self, messages: Sequence[Message], *, think: bool = True, tools: ToolSchemas = ()
    ) -> str:
        if tools:
            shown, messages = _with_tools(messages, tools)
            return f"<|im_start|>system\n{shown}<|im_end|>\n" + self.render(messages, think=think)
        parts: list[str] = []
        for index, message in enumerate(messages):
            content = neutralise(message.content)
            if message.role != "tool":
                parts.append(f"<|im_start|>{message.role}\n{content}<|im_end|>\n")
                continue
            if index == 0 or messages[index - 1].role != "tool":
                parts.append("<|im_start|>user")
            parts.append(f"\n<tool_response>\n{content}\n</tool_response>")
            if index + 1 == len(messages) or messages[index + 1].role != "tool":
                parts.append("<|im_end|>\n")
        return "".join(parts) + _ASSISTANT

    def reply(self, messages: Sequence[Message], *, think: bool = True, ended: bool = True) -> str:
        return ("\n" if ended else "<|im_end|>\n") + self.render(messages, think=think)


class _Qwen3(_ChatML):
    """Qwen3: earlier turns lose their thoughts; without thinking, the thoughts are given empty."""

    has_thinking = True

    def render(
        self, messages: Sequence[Message], *, think: bool = True, tools: ToolSchemas = ()
    ) -> str:
        if tools:
            return super().render(messages, think=think, tools=tools)
        last = len(messages) - 1
        query = max((i for i, m in enumerate(messages) if m.role == "user"), default=last)
        turns = [
            _qwen3_assistant(m, keep=i > query, is_last=i == last) if m.role == "assistant" else m
            for i, m in enumerate(messages)
        ]
        return super().render(turns) + ("" if think else _NO_THINKING)


def _plain_tools(tools: ToolSchemas) -> str:
    functions = [tool["function"] for tool in tools]
    lines = [
        f"{each['name']}: {', '.join(each['parameters'].get('properties', {}))} "
        f"({each['description']})"
        for each in functions
    ]
    return "\n".join(["To use a tool, end with a line such as one of these:", *lines])


def _with_tools(messages: Sequence[Message], tools: ToolSchemas) -> tuple[str, Sequence[Message]]:
    """Return the system message that shows tools, and the messages after it."""
    signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _TOOLS_BEFORE + signatures + _TOOLS_AFTER
    if messages[0].role != "system":
        return text, messages
    return f"{neutralise(messages[0].content)}\n\n{text}", messages[1:]


def _qwen3_assistant(message: Message, *, keep: bool, is_last: bool) -> Message:
    """Return an assistant's turn with its thoughts dropped, or kept in the form of Qwen3."""
    before, end, _ = message.content.partition("</think>")
    content = message.content.rpartition("</think>")[2].lstrip("\n") if end else message.content
    thoughts = before.rstrip("\n").rpartition("<think>")[2].strip("\n") if end else ""
    if keep and (thoughts or is_last):
        content = f"<think>\n{thoughts}\n</think>\n\n" + content.lstrip("\n")
    return Message(role="assistant", content=content)


class _Tokenizer:
    """The chat template of a Hugging Face tokenizer."""

    marks_turns = True

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.has_thinking = "enable_thinking" in str(tokenizer.chat_template)
        self._shows_tools = re.search(r"\btools\b", str(tokenizer.chat_template)) is not None
        added = tokenizer.added_tokens_decoder.values()
        markers = {str(token) for token in added if token.special} | {*tokenizer.all_special_tokens}
        self._markers = sorted((m for m in markers if len(m) > 1), key=len, reverse=True)

    def render(
        self, messages: Sequence[Message], *, think: bool = True, tools: ToolSchemas = ()
    ) -> str:
        if tools and not self._shows_tools:
            text, messages = _with_tools(messages, tools)
            messages = [Message(role="system", content=text), *messages]
            tools = ()
        return self._render(messages, think=think, tools=tools, begins_turn=True)

    def reply(self, messages: Sequence[Message], *, think: bool = True, ended: bool = True) -> str:
        asked = [Message(role="user", content="?"), Message(role="assistant", content=_SAID)]
        whole = self._render([*asked, *messages], think=think, begins_turn=True)
        _, said, rest = whole.partition(_SAID)
        if not said:
            raise PromptError(
                f"the chat template of {self._tokenizer.name_or_path} drops a turn that others "
                "follow, so a dialogue cannot be continued; take the template chatml or qwen3"
            )
        end = next((marker for marker in self._markers if rest.startswith(marker)), "")
        return rest.removeprefix(end) if ended else rest

    def _render(
        self,
        messages: Sequence[Message],
        *,
        think: bool,
        begins_turn: bool,
        tools: ToolSchemas = (),
    ) -> str:
        import jinja2

        chat = [{"role": m.role, "content": self._neutralise(m.content)} for m in messages]
        switch: dict[str, Any] = {"enable_thinking": think} if self.has_thinking else {}
        if tools:
            switch["tools"] = [dict(tool) for tool in tools]
        try:
            text = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=begins_turn, **switch
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(m.role for m in messages)
            raise PromptError(
                f"the chat template of {self._tokenizer.name_or_path} refuses the roles {roles}: "
                f"{error}"
            ) from None
        return str(text)

    def _neutralise(self, content: str) -> str:
        for marker in self._markers:
            if marker in content:
                content = content.replace(marker, f"{marker[0]} {marker[1:]}")
        return neutralise(content)


@functools.lru_cache(maxsize=8)
def _tokenizer_template(name: str) -> Template:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError("transformers", "agents", f"template 'tokenizer:{name}'") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"template 'tokenizer:{name}': no tokenizer there: {reason}") from None
    if not tokenizer.chat_template:
        raise ConfigError(
            f"template 'tokenizer:{name}': this tokenizer has no chat template; name one of "
            f"{', '.join(_BY_NAME)}"
        )
    return _Tokenizer(tokenizer)


_BY_NAME: dict[str, Template] = {"plain": _Plain(), "chatml": _ChatML(), "qwen3": _Qwen3()}
