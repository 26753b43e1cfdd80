//! What the documentation tells people to type: every configuration in it is one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::certificates::Authority;
use e2e::proxy::validate;
use e2e::{Engine, binaries};
use tempfile::TempDir;

/// Where the documentation has its readers put certificates.
const CERTIFICATES: &str = "/tmp/certs";

#[test]
fn every_bootstrap_of_the_documentation_is_accepted() -> Result<()> {
    let mut found = 0;
    let certificates = TempDir::new()?;
    Authority::new(certificates.path(), "ca")?.issue("server", &["shop.example"])?;
    for page in pages(&binaries::root().join("docs"))? {
        let text = std::fs::read_to_string(&page)?;
        for block in bootstraps(&text) {
            found += 1;
            let block = block.replace(CERTIFICATES, &certificates.path().to_string_lossy());
            for engine in Engine::available() {
                let done = validate(engine, &block)?;
                ensure!(
                    done.status.success(),
                    "{engine:?} refuses a bootstrap of {}:\n{}{}",
                    page.display(),
                    String::from_utf8_lossy(&done.stdout),
                    String::from_utf8_lossy(&done.stderr)
                );
            }
        }
    }
    ensure!(found > 0, "there are none");
    Ok(())
}

fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            pages.extend(self::pages(&path)?);
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// The fenced blocks of YAML that are whole bootstraps.
fn bootstraps(text: &str) -> Vec<String> {
    let blocks = text.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    blocks.filter(|block| block.contains("static_resources:")).map(str::to_owned).collect()
}
