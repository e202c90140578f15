# Format, lints and all tests.
test *ARGS:
    scripts/test {{ARGS}}

# Measures; see scripts/bench --help.
bench NAME *ARGS:
    scripts/bench {{NAME}} {{ARGS}}

# The platform with its examples, on this machine.
demo:
    scripts/demo
