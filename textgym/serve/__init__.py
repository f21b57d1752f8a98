"""Rewards, the sandboxed executor and a reference model as HTTP services; see docs/services.md.

Nothing here is imported by `import textgym`, and this package itself imports neither FastAPI nor
torch: `textgym.serve.wire` is also the client's side.
"""
