//! Writes the CustomResourceDefinitions into the chart, or with `--check` reports whether the
//! chart has those that the types define.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut check = false;
    let mut folder = PathBuf::from("charts/weft/templates/crds");
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            "--help" | "-h" => {
                println!("crdgen [--check] [FOLDER, by default {}]", folder.display());
                return ExitCode::SUCCESS;
            }
            _ => folder = PathBuf::from(argument),
        }
    }
    let result = if check {
        compare(&folder)
    } else {
        write(&folder)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("crdgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let templates = crds::chart::templates().map_err(|error| error.to_string())?;
    for (name, text) in templates {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn compare(folder: &Path) -> Result<(), String> {
    let stale = crds::chart::stale(folder).map_err(|error| error.to_string())?;
    match stale.as_slice() {
        [] => Ok(()),
        stale => Err(format!(
            "stale: {}; run `cargo run -p crds --bin crdgen`",
            stale.join(", ")
        )),
    }
}
