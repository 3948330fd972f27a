//! Says when `src/generated.rs` no longer is what the protocol file describes,
//! and writes it anew on request:
//! `WEFT_WRITE_GENERATED=1 cargo test -p wire --test generated`.

use std::path::{Path, PathBuf};

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated.rs");
    let fresh = generate(root);

    if std::env::var_os("WEFT_WRITE_GENERATED").is_some() {
        std::fs::write(&committed, &fresh).expect("generated.rs must be writable");
    }
    let current = std::fs::read_to_string(&committed).expect("generated.rs must be committed");
    assert!(
        current == fresh,
        "src/generated.rs is stale: run WEFT_WRITE_GENERATED=1 cargo test -p wire --test generated"
    );
}

fn generate(root: &Path) -> String {
    let files = protox::compile([root.join("proto/weft.proto")], [root.join("proto")])
        .expect("weft.proto must compile");
    let out = Scratch::new();
    tonic_prost_build::configure()
        .out_dir(&out.0)
        .emit_rerun_if_changed(false)
        .codec_path("crate::codec::Codec")
        // Its key is nowhere to be shown.
        .skip_debug([".weft.v1.ListenerCertificate"])
        .compile_fds(files)
        .expect("code must be generated");
    std::fs::read_to_string(out.0.join("weft.v1.rs")).expect("package weft.v1 must be generated")
}

/// A directory of this test run, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("generated-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory must be writable");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover lies below target/ and disturbs no other test.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
