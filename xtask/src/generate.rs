//! `cargo xtask generate`: everything in the repository that is derived from `.proto` files.
//!
//! Sources are the protos that the `envoy-types` crate ships and our own under `crates/api/proto`.
//! No `protoc` is needed. The results are checked in, so that building needs none of this.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use prost_reflect::DescriptorPool;
use protox::file::{File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::prost_types::FileDescriptorSet;

use crate::generate_schema;

/// Folder of our own protos, relative to the workspace's root.
const OWN_PROTOS: &str = "crates/api/proto";
/// Folder of the generated Rust, relative to the workspace's root.
const GENERATED: &str = "crates/api/src/generated";

/// The packed schema of the configuration.
const SCHEMA: &str = "crates/api/src/schema.bin";

/// Packages of our own protos; only these get Rust of their own.
const OWN_PACKAGES: &[&str] = &[
    "io.istio.http.peer_metadata",
    "istio.envoy.config.filter.http.alpn.v2alpha1",
    "istio.v1.auth",
    "stats",
    "udpa.type.v1",
    "xds.type.v3",
    "xds.type.matcher.v3",
];

/// Types that the own protos import and `envoy-types` defines, with the path they have in Rust.
const EXTERN_PATHS: &[(&str, &str)] = &[
    (".google", "crate::google"),
    (".cel", "envoy_types::pb::cel"),
    (".validate", "envoy_types::pb::validate"),
    (".udpa.annotations", "envoy_types::pb::udpa::annotations"),
    (".xds.annotations", "envoy_types::pb::xds::annotations"),
    (".xds.core.v3", "envoy_types::pb::xds::core::v3"),
    (".xds.type.v3.CelExpression", "crate::imported::types::CelExpression"),
    (".xds.type.v3.CelExtractString", "crate::imported::types::CelExtractString"),
    (".xds.type.matcher.v3.Matcher", "crate::imported::matcher::Matcher"),
    (".xds.type.matcher.v3.RegexMatcher", "crate::imported::matcher::RegexMatcher"),
    (".xds.type.matcher.v3.StringMatcher", "crate::imported::matcher::StringMatcher"),
    (".xds.type.matcher.v3.ListStringMatcher", "crate::imported::matcher::ListStringMatcher"),
];

/// One generated file: its path from the workspace's root and its content.
pub struct Generated {
    /// Path relative to the workspace's root.
    pub path: PathBuf,
    /// The whole content.
    pub content: Vec<u8>,
}

/// Writes every generated file, or with `check` fails if one on disk differs.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for file in generate(root)? {
        let path = root.join(&file.path);
        if fs::read(&path).is_ok_and(|found| found == file.content) {
            continue;
        }
        stale.push(file.path.display().to_string());
        if !check {
            fs::create_dir_all(path.parent().context("generated file without a folder")?)?;
            fs::write(&path, &file.content)?;
        }
    }
    if check && !stale.is_empty() {
        bail!("out of date, run `cargo xtask generate`: {}", stale.join(", "));
    }
    Ok(())
}

/// Computes every generated file without writing any.
pub fn generate(root: &Path) -> Result<Vec<Generated>> {
    let sources = Sources::find(root)?;
    let mut files = rust_stubs(&sources)?;
    let pool = descriptors(&sources)?;
    files.push(Generated { path: SCHEMA.into(), content: generate_schema::schema(root, &pool)? });
    Ok(files)
}

/// Every message that a configuration may hold.
fn descriptors(sources: &Sources) -> Result<DescriptorPool> {
    let mut names = Sources::names_under(&sources.own)?;
    for folder in &sources.envoy {
        names.extend(Sources::names_under(folder)?);
    }
    names.retain(|name| !name.starts_with("ratelimit/config/"));
    let encoded = sources.compile(&names)?.encode_file_descriptor_set();
    Ok(DescriptorPool::decode(encoded.as_slice())?)
}

/// The proto files and where they are.
struct Sources {
    own: PathBuf,
    envoy: Vec<PathBuf>,
}

impl Sources {
    /// Asks cargo where `envoy-types` is unpacked.
    fn find(root: &Path) -> Result<Self> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked"])
            .current_dir(root)
            .output()?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let manifest = metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|package| package["name"] == "envoy-types")
            .and_then(|package| package["manifest_path"].as_str())
            .context("envoy-types is not among the packages")?;
        let protos = Path::new(manifest).with_file_name("proto");
        let mut envoy = Vec::new();
        for folder in fs::read_dir(&protos)? {
            let folder = folder?.path();
            let nested = folder.join("proto");
            envoy.push(if nested.is_dir() { nested } else { folder });
        }
        envoy.sort();
        Ok(Self { own: root.join(OWN_PROTOS), envoy })
    }

    /// Import names of all files under `folder`, sorted.
    fn names_under(folder: &Path) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let mut pending = vec![folder.to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "proto") {
                    names.insert(path.strip_prefix(folder)?.to_string_lossy().into_owned());
                }
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> Option<String> {
        std::iter::once(&self.own)
            .chain(&self.envoy)
            .find_map(|folder| fs::read_to_string(folder.join(name)).ok())
    }

    /// Compiles the named files and all that they import; the set is in dependency order.
    fn compile(&self, names: &BTreeSet<String>) -> Result<protox::Compiler> {
        let resolver =
            Resolver { sources: Self { own: self.own.clone(), envoy: self.envoy.clone() } };
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        compiler.include_source_info(false);
        for name in names {
            compiler.open_file(name).map_err(|error| anyhow::anyhow!("{name}: {error:?}"))?;
        }
        Ok(compiler)
    }
}

/// Opens files from the source folders, making Envoy's relative type names absolute.
///
/// protox resolves a relative name against every package that is loaded, protoc only against those that are
/// imported; `config.core.v3.Address` inside `envoy.extensions...` is found only by the latter.
struct Resolver {
    sources: Sources,
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let Some(source) = self.sources.read(name) else {
            return GoogleFileResolver::new().open_file(name);
        };
        let source = if name.starts_with("envoy/") { absolute_type_names(&source) } else { source };
        File::from_source(name, &source)
    }
}

/// Makes the relative type names that open a field or a map's value absolute: `config.core.v3.Address` is what an
/// import `envoy/config/core/v3/address.proto` declares.
fn absolute_type_names(source: &str) -> String {
    let packages: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.strip_prefix("import \"")?.rsplit_once('/'))
        .map(|(folder, _)| folder.replace('/', "."))
        .filter(|package| package.starts_with("envoy."))
        .collect();
    let mut out = String::with_capacity(source.len() + 4096);
    for line in source.lines() {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        let (label, rest) = ["repeated ", "optional ", "map<string, "]
            .iter()
            .find_map(|label| body.strip_prefix(label).map(|rest| (*label, rest)))
            .unwrap_or(("", body));
        out.push_str(indent);
        out.push_str(label);
        if let Some(package) = packages.iter().find_map(|package| qualifier(package, rest)) {
            out.push_str(&package);
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

/// What to put before `declaration` so that its type lies in `package`: `.envoy.` for `config.core.v3.Address a = 1;`
/// and `envoy.config.core.v3`. Only names of more than one part are qualified.
fn qualifier(package: &str, declaration: &str) -> Option<String> {
    let name = declaration.split([' ', '>']).next()?;
    let (relative, _) =
        name.rsplit_once(".v3.").filter(|(relative, _)| !relative.starts_with("envoy"))?;
    let parent = package.strip_suffix(".v3")?.strip_suffix(relative)?;
    parent.ends_with('.').then(|| format!(".{parent}"))
}

/// Messages and gRPC stubs of our own protos.
fn rust_stubs(sources: &Sources) -> Result<Vec<Generated>> {
    let names = Sources::names_under(&sources.own)?;
    let compiler = sources.compile(&names)?;
    let files = compiler.file_descriptor_set();
    let out = std::env::temp_dir().join(format!("outrigger-generate-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let result = write_stubs(files, &out).and_then(|()| read_stubs(&out));
    fs::remove_dir_all(&out)?;
    result
}

fn write_stubs(files: FileDescriptorSet, out: &Path) -> Result<()> {
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(true)
        .emit_rerun_if_changed(false);
    for (proto, rust) in EXTERN_PATHS {
        builder = builder.extern_path(*proto, *rust);
    }
    builder.compile_fds_with_config(files, config)?;
    Ok(())
}

fn read_stubs(out: &Path) -> Result<Vec<Generated>> {
    let mut generated = Vec::new();
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let name = path.file_name().context("no file name")?.to_string_lossy().replace("r#", "");
        if !OWN_PACKAGES.iter().any(|package| name == format!("{package}.rs")) {
            continue;
        }
        generated
            .push(Generated { path: Path::new(GENERATED).join(name), content: fs::read(&path)? });
    }
    generated.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(generated)
}
