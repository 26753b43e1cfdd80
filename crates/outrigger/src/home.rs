//! Where meshes keep their state, and which of them is meant.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use apiserver::control_socket::client::ControlClient;
use apiserver::state_dir::StateDir;

/// Where meshes of this user keep their state.
#[derive(Clone, Debug, clap::Args)]
pub struct HomeArgs {
    #[arg(long, env = "XDG_STATE_HOME", hide = true)]
    state_home: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
}

/// Which mesh is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct MeshArgs {
    /// Which mesh: its name, or its state directory [default: the one that runs]
    #[arg(long, value_name = "NAME")]
    mesh: Option<String>,
    #[command(flatten)]
    home: HomeArgs,
}

/// File of a state directory that says which directory the mesh is of.
const DIRECTORY_FILE: &str = "directory";

impl HomeArgs {
    /// `$XDG_STATE_HOME/outrigger`, with the default that XDG gives.
    fn root(&self) -> anyhow::Result<PathBuf> {
        // A relative path is to be ignored, says the XDG specification.
        let state = self.state_home.clone().filter(|path| path.is_absolute());
        let state = state.or_else(|| Some(self.home.clone()?.join(".local/state")));
        Ok(state
            .context("neither XDG_STATE_HOME nor HOME is set: where should state live?")?
            .join("outrigger"))
    }

    /// The state directories of this user's meshes.
    fn meshes(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.root()?).into_iter().flatten().flatten();
        let mut meshes: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        meshes.sort();
        Ok(meshes)
    }

    /// Name and state directory of the mesh of `directory`. A name that another directory has gets a suffix.
    pub fn mesh_of(
        &self,
        directory: &Path,
        name: Option<&str>,
    ) -> anyhow::Result<(String, PathBuf)> {
        let base = match name {
            Some(name) => name.to_owned(),
            None => directory
                .file_name()
                .map_or_else(|| "mesh".to_owned(), |name| name.to_string_lossy().into_owned()),
        };
        if base.is_empty() || base.starts_with('.') || base.contains('/') {
            bail!("{base:?} is no name for a mesh: give one with --name");
        }
        let root = self.root()?;
        let path = root.join(&base);
        match fs::read_to_string(path.join(DIRECTORY_FILE)) {
            Ok(other) if Path::new(other.trim_end()) != directory && name.is_none() => {
                let suffixed = format!("{base}-{:08x}", path_hash(directory));
                Ok((suffixed.clone(), root.join(suffixed)))
            }
            _ => Ok((base, path)),
        }
    }
}

/// FNV-1a, which is the same in every build: a mesh must find its state again.
fn path_hash(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Notes which directory a mesh is of.
pub fn note_directory(state: &StateDir, directory: &Path) -> anyhow::Result<()> {
    drop(state.file(DIRECTORY_FILE)?);
    let path = state.path().join(DIRECTORY_FILE);
    fs::write(&path, directory.display().to_string()).with_context(|| path.display().to_string())
}

impl MeshArgs {
    /// The state directory of the mesh that is meant: the one named, which may have stopped, else the only one that runs.
    pub fn state_dir(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.mesh {
            Some(path) if path.contains('/') => PathBuf::from(path),
            Some(name) => self.home.root()?.join(name),
            None => return self.only_running(true),
        };
        if !path.is_dir() {
            let name = self.mesh.as_deref().unwrap_or_default();
            match names(&self.home.meshes()?).as_str() {
                "" => bail!("there is no mesh {name}: start one with `outrigger up DIRECTORY`"),
                known => bail!("there is no mesh {name}; there are: {known}"),
            }
        }
        Ok(path)
    }

    /// The state directory of the mesh that is meant, which runs.
    pub fn running_dir(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.mesh {
            Some(_) => self.state_dir()?,
            None => self.only_running(false)?,
        };
        if StateDir::user_of(&path).is_none() {
            let name = path.file_name().unwrap_or_default().display();
            let directory = fs::read_to_string(path.join(DIRECTORY_FILE));
            let directory = directory.unwrap_or_else(|_| "DIRECTORY".to_owned());
            bail!("mesh {name} does not run: start it with `outrigger up {directory}`");
        }
        Ok(path)
    }

    /// A client of the mesh that is meant, which runs.
    pub fn client(&self) -> anyhow::Result<ControlClient> {
        Ok(ControlClient::new(&self.running_dir()?.join("control.sock")))
    }

    fn only_running(&self, stopped_would_do: bool) -> anyhow::Result<PathBuf> {
        let meshes = self.home.meshes()?;
        let (mut running, stopped): (Vec<PathBuf>, Vec<PathBuf>) =
            meshes.into_iter().partition(|path| StateDir::user_of(path).is_some());
        match (running.len(), names(&stopped)) {
            (0, stopped) if stopped.is_empty() || !stopped_would_do => {
                bail!("no mesh runs here: start one with `outrigger up DIRECTORY`")
            }
            (0, stopped) => bail!(
                "no mesh runs here: start one with `outrigger up DIRECTORY`, or name one that has stopped with --mesh: {stopped}"
            ),
            (1, _) => Ok(running.remove(0)),
            _ => bail!("several meshes run here, say which with --mesh: {}", names(&running)),
        }
    }
}

/// The names of meshes, by their state directories.
fn names(meshes: &[PathBuf]) -> String {
    let names = meshes.iter().filter_map(|path| path.file_name()).map(|it| it.to_string_lossy());
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_is_named_after_its_directory_and_no_two_share_a_state() {
        let temporary = tempfile::tempdir().unwrap();
        let home = HomeArgs { state_home: Some(temporary.path().to_owned()), home: None };
        let (name, path) = home.mesh_of(Path::new("/a/shop"), None).unwrap();
        assert_eq!(
            (name.as_str(), path.clone()),
            ("shop", temporary.path().join("outrigger/shop"))
        );
        let state = StateDir::open(&path).unwrap();
        note_directory(&state, Path::new("/a/shop")).unwrap();
        assert_eq!(home.mesh_of(Path::new("/a/shop"), None).unwrap().0, "shop");
        let (other, _) = home.mesh_of(Path::new("/b/shop"), None).unwrap();
        assert!(other.starts_with("shop-"), "{other}");
        assert_eq!(home.mesh_of(Path::new("/b/shop"), Some("mine")).unwrap().0, "mine");
        assert!(home.mesh_of(Path::new("/"), Some("../x")).is_err());
    }

    #[test]
    fn the_one_that_runs_is_meant_if_nothing_is_said() {
        let temporary = tempfile::tempdir().unwrap();
        let home = HomeArgs { state_home: Some(temporary.path().to_owned()), home: None };
        let args = MeshArgs { mesh: None, home: home.clone() };
        assert!(args.state_dir().unwrap_err().to_string().contains("outrigger up"));
        let first = StateDir::open(temporary.path().join("outrigger/a")).unwrap();
        assert_eq!(args.state_dir().unwrap(), first.path());
        let second = StateDir::open(temporary.path().join("outrigger/b")).unwrap();
        assert!(args.state_dir().unwrap_err().to_string().ends_with("a, b"));
        let named = |name: &str| MeshArgs { mesh: Some(name.to_owned()), home: home.clone() };
        let b = temporary.path().join("outrigger/b");
        assert_eq!(named("b").running_dir().unwrap(), b);
        assert!(named("c").state_dir().unwrap_err().to_string().ends_with("there are: a, b"));
        // One that has stopped has logs still, and is said how to be started.
        note_directory(&second, Path::new("/home/me/b")).unwrap();
        drop((first, second));
        assert_eq!(named("b").state_dir().unwrap(), b);
        let stopped = named("b").running_dir().unwrap_err().to_string();
        assert!(stopped.contains("`outrigger up /home/me/b`"), "{stopped}");
        assert!(args.state_dir().unwrap_err().to_string().ends_with("a, b"));
    }
}
