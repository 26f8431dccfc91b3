//! The committed code of the protocol messages is what their definitions make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::Path;

#[test]
fn generated_messages_are_those_of_the_definitions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made =
        tempfile::Builder::new().disable_cleanup(true).tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for file in ["runtime.proto", "containerd.proto", "otlp.proto"] {
        let definitions = protox::compile([file], [root.join("proto")]).expect("sound definitions");
        let mut config = prost_build::Config::new();
        config.out_dir(made.path()).compile_fds(definitions).expect("code");
    }
    for (place, name) in [("cri", "runtime.v1.rs"), ("cri", "containerd.rs"), ("otlp", "otlp.rs")] {
        let fresh = std::fs::read_to_string(made.path().join(name)).expect("generated");
        let path = root.join("src").join(place).join("generated").join(name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(fresh == committed, "hint: cp {} {}", made.path().join(name).display(), path.display());
    }
    std::fs::remove_dir_all(made.path()).expect("removed");
}
