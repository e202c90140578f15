# What a change must pass before its tests are worth running: format, lints, documentation.
check:
    scripts/test --check

# Everything; FILTER picks tests by name, --long lets the repeating ones run for long.
test *FILTER:
    scripts/test {{FILTER}}

# The module with another nginx: scripts/test-nginx DIRECTORY FILTER.
test-nginx *ARGS:
    scripts/test-nginx {{ARGS}}

# Measures: scripts/bench --help.
bench NAME *ARGS:
    scripts/bench {{NAME}} {{ARGS}}

# Looks for bytes that break a parser: scripts/fuzz --for SECONDS TARGET.
fuzz *ARGS:
    scripts/fuzz {{ARGS}}

# The platform with its examples, on this machine.
demo *ARGS:
    scripts/demo {{ARGS}}
