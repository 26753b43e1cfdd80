//! `outrigger logs`: what a workload wrote.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args as _, FromArgMatches as _};

use super::Row;
use crate::home::MeshArgs;

/// The row of the table.
pub const ROW: Row = Row { name: "logs", command, run };

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// The workload, as `outrigger status` names it
    name: String,
    /// Go on as more is written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last so many lines [default: all]
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    #[command(flatten)]
    mesh: MeshArgs,
}

/// Time between two looks at a file that is followed.
const LOOK: Duration = Duration::from_millis(150);

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("logs"))
        .about("Show what a workload and its sidecar wrote")
}

/// Shows the log file.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    let folder = args.mesh.state_dir()?.join("logs");
    let path = folder.join(format!("{}.log", args.name));
    if args.name.contains('/') || !path.is_file() {
        match names(&folder).join(", ").as_str() {
            "" => bail!("there is no log of {:?}: nothing was run yet", args.name),
            known => bail!("there is no log of {:?}; there are: {known}", args.name),
        }
    }
    let mut file = File::open(&path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let mut out = io::stdout().lock();
    out.write_all(last_lines(&text, args.tail))?;
    if args.follow {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(follow(&path, file, &mut out))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"));
    let mut names: Vec<String> = files
        .filter_map(|path: PathBuf| {
            path.file_stem().map(|name| name.to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    names
}

fn last_lines(text: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return text };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let ends =
        body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => &text[ends.take(before + 1).nth(before).unwrap_or(0)..],
    }
}

/// Writes what is appended, also after the file was replaced by a new one.
async fn follow(path: &Path, mut file: File, out: &mut impl Write) -> io::Result<()> {
    loop {
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        if !more.is_empty() {
            out.write_all(&more)?;
            out.flush()?;
            continue;
        }
        let (here, now) = (file.metadata()?, fs::metadata(path));
        match now {
            Ok(now) if now.ino() != here.ino() => file = File::open(path)?,
            Ok(now) if now.len() < file.stream_position()? => drop(file.seek(SeekFrom::Start(0))?),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        let text = b"a\nb\nc\n";
        assert_eq!(last_lines(text, None), text);
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(text, Some(1)), b"c\n");
        assert_eq!(last_lines(text, Some(2)), b"b\nc\n");
        assert_eq!(last_lines(text, Some(9)), text);
    }
}
