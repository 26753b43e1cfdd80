//! What is shown, and what is kept: every line of every workload under its name, in the terminal and in its log file.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::directory::{Outcome, name_of};
use parking_lot::Mutex;
use resources::yaml::FileProblem;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Size at which a log file begins anew; the one before is kept.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes after which a line is cut in two.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Lines of a workload that are remembered, to be shown when it crashes.
const REMEMBERED: usize = 8;
/// Objects of a change that are told by name.
const LISTED: usize = 20;
/// Colours that read well on dark and light.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// The terminal and the folder of log files. Clones are the same.
#[derive(Clone)]
pub struct Screen(Arc<Inner>);

struct Inner {
    logs: PathBuf,
    colours: bool,
    /// Width of the longest name so far.
    width: Mutex<usize>,
}

impl Screen {
    /// A screen whose workloads' lines are kept in the folder `logs`.
    pub fn new(logs: PathBuf) -> Self {
        Self(Arc::new(Inner { logs, colours: io::stdout().is_terminal(), width: Mutex::new(9) }))
    }

    /// Says something about the mesh.
    pub fn say(&self, text: &str) {
        let mut all = String::new();
        for line in text.lines() {
            let prefix = if self.0.colours { "\u{1b}[1moutrigger\u{1b}[0m" } else { "outrigger" };
            let padding = " ".repeat(self.0.width.lock().saturating_sub("outrigger".len()));
            all.push_str(&format!("{prefix}{padding} | {line}\n"));
        }
        self.print(&all);
    }

    /// Says what is wrong with the directory.
    pub fn problems(&self, problems: &[FileProblem]) {
        for problem in problems {
            self.say(&format!("error: {problem}"));
        }
    }

    /// Says what is worth knowing about the directory.
    pub fn warnings(&self, warnings: &[FileProblem]) {
        for warning in warnings {
            self.say(&format!("warning: {warning}"));
        }
    }

    /// Says what a pass over the directory changed.
    pub fn change(&self, outcome: &Outcome, time: Duration) {
        let groups =
            [("new", &outcome.created), ("changed", &outcome.changed), ("gone", &outcome.deleted)];
        for (what, keys) in groups {
            for key in keys.iter().take(LISTED) {
                self.say(&format!("{what}: {} ({})", name_of(key), seconds(time)));
            }
            if let Some(more) = keys.len().checked_sub(LISTED + 1) {
                self.say(&format!("{what}: {} more ({})", more + 1, seconds(time)));
            }
        }
    }

    /// The output of one workload.
    pub fn workload(&self, name: &str) -> io::Result<WorkloadOutput> {
        let mut width = self.0.width.lock();
        *width = (*width).max(name.len());
        drop(width);
        let colour = COLOURS[name.bytes().map(usize::from).sum::<usize>() % COLOURS.len()];
        let log = LogFile::open(&self.0.logs.join(format!("{name}.log")))?;
        let shared = OutputState { log: Some(log), last: VecDeque::new() };
        Ok(WorkloadOutput {
            screen: self.clone(),
            name: name.to_owned(),
            colour,
            state: Arc::new(Mutex::new(shared)),
        })
    }

    fn print(&self, text: &str) {
        // A terminal that is gone must not take the mesh with it.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }
}

/// The output of one workload. Clones are the same.
#[derive(Clone)]
pub struct WorkloadOutput {
    screen: Screen,
    name: String,
    colour: u8,
    state: Arc<Mutex<OutputState>>,
}

struct OutputState {
    /// None once it could not be written.
    log: Option<LogFile>,
    last: VecDeque<String>,
}

impl WorkloadOutput {
    /// Shows and keeps every line of a pipe until it ends.
    pub async fn relay(self, pipe: impl AsyncRead + Unpin) {
        let mut reader = BufReader::with_capacity(MAX_LINE_BYTES, pipe);
        let mut line = Vec::new();
        loop {
            let (used, ended) = match reader.fill_buf().await {
                Ok([]) | Err(_) => break,
                Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        line.extend_from_slice(&bytes[..end]);
                        (end + 1, true)
                    }
                    None => {
                        line.extend_from_slice(bytes);
                        (bytes.len(), line.len() >= MAX_LINE_BYTES)
                    }
                },
            };
            reader.consume(used);
            if ended {
                self.line(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
        if !line.is_empty() {
            self.line(&String::from_utf8_lossy(&line));
        }
    }

    fn line(&self, line: &str) {
        let line = line.trim_end_matches('\r');
        let mut state = self.state.lock();
        if !is_access_log(line) {
            if state.last.len() == REMEMBERED {
                state.last.pop_front();
            }
            state.last.push_back(line.to_owned());
        }
        if let Some(log) = &mut state.log
            && let Err(error) = log.write(line)
        {
            state.log = None;
            self.screen.say(&format!("the log of {} is not written any more: {error}", self.name));
        }
        drop(state);
        let width = *self.screen.0.width.lock();
        let text = match self.screen.0.colours {
            true => format!("\u{1b}[{}m{:<width$}\u{1b}[0m | {line}\n", self.colour, self.name),
            false => format!("{:<width$} | {line}\n", self.name),
        };
        self.screen.print(&text);
    }

    /// The last lines.
    pub fn last_lines(&self) -> Vec<String> {
        self.state.lock().last.iter().cloned().collect()
    }

    /// Forgets the last lines: another process begins.
    pub fn begin(&self) {
        self.state.lock().last.clear();
    }
}

/// Whether a line is of a sidecar's access log, which says nothing about why a workload ended.
fn is_access_log(line: &str) -> bool {
    line.starts_with("[20") && line.contains("Z] \"")
}

/// A log file that does not grow without end.
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.size > MAX_LOG_BYTES {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *self = Self::open(&self.path)?;
        }
        let line = format!("{line}\n");
        self.size += line.len() as u64;
        self.file.write_all(line.as_bytes())
    }
}

/// A time for people.
pub fn seconds(time: Duration) -> String {
    match time.as_millis() {
        millis if millis < 1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_kept_and_the_last_remembered() {
        let temporary = tempfile::tempdir().unwrap();
        let output = Screen::new(temporary.path().to_owned()).workload("web").unwrap();
        let text: String = (0..12).map(|n| format!("line {n}\n")).collect();
        output.clone().relay(format!("{text}no end").as_bytes()).await;
        let kept = fs::read_to_string(temporary.path().join("web.log")).unwrap();
        assert_eq!(kept, format!("{text}no end\n"));
        assert_eq!(output.last_lines().len(), REMEMBERED);
        assert_eq!(output.last_lines().last().map(String::as_str), Some("no end"));
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let temporary = tempfile::tempdir().unwrap();
        let output = Screen::new(temporary.path().to_owned()).workload("web").unwrap();
        output.clone().relay(vec![b'x'; MAX_LINE_BYTES * 3 / 2].as_slice()).await;
        assert_eq!(output.last_lines().len(), 2);
    }

    #[test]
    fn a_log_file_begins_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write("old").unwrap();
        log.size = MAX_LOG_BYTES + 1;
        log.write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(temporary.path().join("a.log.1")).unwrap(), "old\n");
    }
}
