# Everything that CI runs.
ci:
    .ci/run

# Fast loop for one crate.
check CRATE:
    cargo check -p {{CRATE}}

test *ARGS:
    scripts/test.sh {{ARGS}}

bench *ARGS:
    scripts/bench.sh {{ARGS}}

bench-live *ARGS:
    scripts/bench-live.sh {{ARGS}}

ui:
    scripts/ui.sh build

run *ARGS:
    scripts/run.sh {{ARGS}}
