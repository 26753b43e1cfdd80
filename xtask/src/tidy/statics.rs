//! No process-global state: a `static` that can change, or a thread-local, needs a reason in `layers.toml`.

use anyhow::Result;

use super::{Findings, Tree};

const CHANGEABLE: [&str; 12] = [
    "Mutex",
    "RwLock",
    "Atomic",
    "OnceLock",
    "OnceCell",
    "LazyLock",
    "LazyCell",
    "Lazy<",
    "ArcSwap",
    "RefCell",
    "Cell<",
    "static mut ",
];

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let allowed = &tree.rules.statics;
    let mut seen = Vec::new();
    for file in tree.sources.iter().filter(|file| file.path.starts_with("crates/")) {
        for (number, line) in file.source.code_lines() {
            let Some(name) = changeable_static(line) else { continue };
            let key = format!("{}::{name}", file.path);
            if !allowed.contains_key(&key) {
                findings.add(format_args!(
                    "{}:{number}: `{name}` is process-global state; pass a handle in",
                    file.path
                ));
            }
            seen.push(key);
        }
    }
    for key in allowed.keys().filter(|key| !seen.contains(key)) {
        findings.add(format_args!("{key} is listed in layers.toml [statics] but is not there"));
    }
    Ok(())
}

/// The name of the static that `line` declares, if its type can change.
fn changeable_static(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("thread_local!") {
        return Some("thread_local!");
    }
    let (before, declaration) = line.split_once("static ")?;
    let declared = before.is_empty() || before.starts_with("pub");
    let changeable = declared && CHANGEABLE.iter().any(|kind| line.contains(kind));
    let name = declaration.trim_start_matches("mut ").split(':').next()?.trim();
    changeable.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::changeable_static;

    #[test]
    fn constant_tables_pass_and_state_does_not() {
        assert_eq!(changeable_static("static TABLE: [u8; 4] = [0; 4];"), None);
        assert_eq!(
            changeable_static("pub(crate) static COUNT: AtomicU64 = AtomicU64::new(0);"),
            Some("COUNT")
        );
        assert_eq!(changeable_static("fn f(x: &'static Mutex<u8>) {}"), None);
        assert_eq!(changeable_static("static mut X: u8 = 0;"), Some("X"));
    }
}
