//! Envoy's own example bootstraps: each is accepted, or refused for exact reasons. `docs/compat/envoy-examples.md` is
//! the table; `OUTRIGGER_BLESS=1` writes it anew.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which the exemption in clippy.toml does not reach"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the examples are, from the repository's root. The project does not carry them.
const INPUTS: &str = "../shared/inputs/envoy";
const TABLE: &str = "docs/compat/envoy-examples.md";

/// What Envoy 1.40 refuses as well.
const REFUSED_BY_ENVOY: [&str; 2] =
    ["doc-quick_start__envoy-demo-old.yaml", "ex-kafka__envoy.yaml"];

const HEADER: &str = "# Envoy's examples

Bootstraps from Envoy's repositories, unmodified, under `outrigger proxy --mode validate`: accepted, or refused with
every reason. Certificates that they name are put beside them. Made by `crates/outrigger/tests/envoy_examples.rs`
(`OUTRIGGER_BLESS=1 cargo test -p outrigger --test envoy_examples`), which fails when this page is out of date.

| Example | Envoy 1.40 | Outrigger |
|---|---|---|
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files that a bootstrap names, relative to where the proxy runs.
fn file_names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("filename:")?;
        let name = rest.trim().trim_end_matches('}').trim().trim_matches('"');
        (!name.starts_with('/')).then_some(name)
    })
}

/// Puts one self-signed pair under every name that a bootstrap needs.
fn put_certificates(directory: &Path, text: &str) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for name in file_names(text) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = if name.contains("key") {
            signed.signing_key.serialize_pem()
        } else {
            signed.cert.pem()
        };
        fs::write(path, content).unwrap();
    }
}

/// One cell of the table: what the program says about a bootstrap.
fn verdict(file: &Path) -> String {
    let directory = tempfile::tempdir().unwrap();
    let name = file.file_name().unwrap();
    let text = fs::read_to_string(file).unwrap();
    fs::write(directory.path().join(name), &text).unwrap();
    put_certificates(directory.path(), &text);
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["proxy", "--mode", "validate", "-l", "error", "-c"])
        .arg(name)
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    if output.status.success() {
        assert_eq!(said.trim(), format!("configuration '{}' OK", name.to_string_lossy()));
        return "accepted".to_owned();
    }
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    let reasons: Vec<_> = errors.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert!(!reasons.is_empty(), "{file:?} is refused without a reason:\n{errors}");
    let cell = |reason: &&str| match reason.split_once(": ") {
        Some((path, message)) => format!("`{path}`: {}", message.replace('|', "\\|")),
        None => (*reason).to_owned(),
    };
    format!("refused:<br>{}", reasons.iter().map(cell).collect::<Vec<_>>().join("<br>"))
}

#[test]
fn every_example_is_accepted_or_refused_for_exact_reasons() {
    let inputs = root().join(INPUTS);
    let Ok(entries) = fs::read_dir(&inputs) else {
        eprintln!("skipped: {} is not there", inputs.display());
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut table = HEADER.to_owned();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let envoy = if REFUSED_BY_ENVOY.contains(&name.as_str()) { "refused" } else { "accepted" };
        let verdict = verdict(&file);
        assert!(envoy == "accepted" || verdict != "accepted", "Envoy refuses {name}");
        writeln!(table, "| `{name}` | {envoy} | {verdict} |").unwrap();
    }
    let path = root().join(TABLE);
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        fs::write(&path, table).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == table, "{TABLE} is out of date; run with OUTRIGGER_BLESS=1\n{table}");
}
