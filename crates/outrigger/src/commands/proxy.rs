//! `outrigger proxy -c FILE`: just the proxy, by Envoy's configuration and flags.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::schema::Schema;
use api::text::Sources;
use clap::{Args as _, FromArgMatches as _, ValueEnum};
use proxy::bootstrap::{Bootstrap, ConfigError};
use proxy::server::{self, Options, Server};
use proxy::snapshot::registry::Extensions;
use telemetry::logging::{Level, Levels};
use tokio::signal::unix::{SignalKind, signal};

use super::Row;

/// The row of the table.
pub const ROW: Row = Row { name: "proxy", command, run };

/// How long listeners stay open after SIGTERM, so that whoever sends connections here can learn of it.
const GRACE: Duration = Duration::from_secs(1);

/// Envoy's flags, as far as they are honoured; any other is refused.
#[derive(clap::Args, Debug)]
struct Arguments {
    /// The bootstrap, YAML or JSON.
    #[arg(short = 'c', long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    /// YAML or JSON to lay over the bootstrap: objects merge, lists append, scalars override.
    #[arg(long, value_name = "TEXT")]
    config_yaml: Option<String>,
    /// `validate` loads the configuration, says whether it is good, and ends.
    #[arg(long, value_enum, default_value = "serve")]
    mode: Mode,
    /// Worker threads; by default as many as the CPUs this process may use.
    #[arg(long, value_name = "NUMBER")]
    concurrency: Option<usize>,
    /// trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, default_value = "info", value_parser = parse_level)]
    log_level: Level,
    /// Levels of single components: `upstream:debug,connection:trace`.
    #[arg(long, value_name = "COMPONENT:LEVEL,...")]
    component_log_level: Option<String>,
    /// Log to this file rather than to standard error.
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,
    /// `node.id`, where the bootstrap has none.
    #[arg(long, default_value = "")]
    service_node: String,
    /// `node.cluster`, where the bootstrap has none.
    #[arg(long, default_value = "")]
    service_cluster: String,
    /// `node.locality.zone`, where the bootstrap has none.
    #[arg(long, default_value = "")]
    service_zone: String,
    /// Seconds that connections may go on once they drain.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    drain_time_s: u64,
    /// All connections are told of a drain at once.
    #[arg(long, value_enum, default_value = "immediate")]
    drain_strategy: DrainStrategy,
    /// Write the admin interface's bound address to this file.
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    /// Milliseconds after which access logs are written out.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    file_flush_interval_msec: u64,
    /// Kilobytes after which an access log is written out.
    #[arg(long, value_name = "KILOBYTES", default_value_t = 64)]
    file_flush_min_size_kb: usize,
    /// Warn of fields of the bootstrap that nobody knows instead of refusing it.
    #[arg(long)]
    allow_unknown_static_fields: bool,
    /// Hot restart is not there, so that this holds anyway.
    #[arg(long)]
    disable_hot_restart: bool,
    /// Print the version and end.
    #[arg(long)]
    version: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DrainStrategy {
    Immediate,
}

fn parse_level(text: &str) -> Result<Level, String> {
    let names = || Level::ALL.map(Level::as_str).join(", ");
    Level::parse(text).ok_or_else(|| format!("it is one of {}", names()))
}

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("proxy"))
        .about("Run just the proxy, by an Envoy bootstrap")
        .disable_version_flag(true)
}

fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_arg_matches(matches)?;
    if arguments.version {
        let program = std::env::current_exe().unwrap_or_else(|_| "outrigger".into());
        say(&format!("{}  version: {}", program.display(), version()));
        return Ok(ExitCode::SUCCESS);
    }
    let levels = levels(&arguments)?;
    crate::logging::start(Arc::clone(&levels), arguments.log_path.as_deref())?;
    let options = options(&arguments, levels)?;
    let extensions = extensions::extensions();
    let name = arguments
        .config_path
        .as_deref()
        .unwrap_or(Path::new("--config-yaml"))
        .display()
        .to_string();
    crate::memory::return_at_once();
    let bootstrap = read(&arguments, &extensions)?;
    if arguments.mode == Mode::Validate {
        let verdict =
            bootstrap.and_then(|bootstrap| server::validate(&bootstrap, extensions, &options));
        return Ok(tell(&name, verdict));
    }
    match bootstrap {
        Ok(bootstrap) => serve(bootstrap, extensions, options),
        Err(error) => Ok(tell(&name, Err(error))),
    }
}

fn levels(arguments: &Arguments) -> anyhow::Result<Arc<Levels>> {
    let levels = Levels::new(arguments.log_level);
    let components = arguments.component_log_level.as_deref().unwrap_or_default();
    for pair in components.split(',').filter(|pair| !pair.is_empty()) {
        let (component, level) =
            pair.split_once(':').with_context(|| format!("`{pair}` is not component:level"))?;
        let level =
            parse_level(level).map_err(|error| anyhow::anyhow!("level `{level}`: {error}"))?;
        levels.set(component, level)?;
    }
    Ok(Arc::new(levels))
}

fn options(arguments: &Arguments, levels: Arc<Levels>) -> anyhow::Result<Options> {
    let concurrency = match arguments.concurrency {
        // Envoy: zero is one.
        Some(count) => count.max(1),
        // Knows affinity and cgroup quotas.
        None => std::thread::available_parallelism().context("cannot count the CPUs")?.get(),
    };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let hostname = hostname.map_or_else(|_| "-".to_owned(), |name| name.trim().to_owned());
    Ok(Options {
        concurrency,
        drain_time: Duration::from_secs(arguments.drain_time_s),
        grace: GRACE,
        flush_interval: Duration::from_millis(arguments.file_flush_interval_msec),
        flush_bytes: arguments.file_flush_min_size_kb << 10,
        admin_address_path: arguments.admin_address_path.clone(),
        version: version(),
        command_line: command_line(arguments, concurrency),
        levels,
        hostname,
        variable: |name| std::env::var(name).ok(),
    })
}

/// The options as `/server_info` shows them.
fn command_line(arguments: &Arguments, concurrency: usize) -> serde_json::Value {
    let path = |path: &Option<PathBuf>| {
        path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    let mut shown = shown_options(
        concurrency,
        Duration::from_secs(arguments.drain_time_s),
        Duration::from_millis(arguments.file_flush_interval_msec),
    );
    let given = serde_json::json!({
        "config_path": path(&arguments.config_path),
        "config_yaml": arguments.config_yaml.as_deref().unwrap_or_default(),
        "admin_address_path": path(&arguments.admin_address_path),
        "log_level": arguments.log_level.as_str(),
        "component_log_level": arguments.component_log_level.as_deref().unwrap_or_default(),
        "log_path": path(&arguments.log_path),
        "service_cluster": arguments.service_cluster,
        "service_node": arguments.service_node,
        "service_zone": arguments.service_zone,
        "mode": if arguments.mode == Mode::Serve { "Serve" } else { "Validate" },
        "file_flush_min_size": arguments.file_flush_min_size_kb,
    });
    if let (Some(shown), serde_json::Value::Object(given)) = (shown.as_object_mut(), given) {
        shown.extend(given);
    }
    shown
}

/// Envoy's `CommandLineOptions` as they stand where nothing else is said: what is not there is told as switched off.
pub fn shown_options(
    concurrency: usize,
    drain_time: Duration,
    flush_interval: Duration,
) -> serde_json::Value {
    let duration = |time: Duration| {
        api::dump::duration(time.as_secs().cast_signed(), time.subsec_nanos().cast_signed())
    };
    serde_json::json!({
        "base_id": "0",
        "use_dynamic_base_id": false,
        "base_id_path": "",
        "concurrency": concurrency,
        "config_path": "",
        "config_yaml": "",
        "allow_unknown_static_fields": false,
        "reject_unknown_dynamic_fields": false,
        "ignore_unknown_dynamic_fields": false,
        "admin_address_path": "",
        "local_address_ip_version": "v4",
        "log_level": "info",
        "component_log_level": "",
        "log_format_escaped": false,
        "log_path": "",
        "service_cluster": "",
        "service_node": "",
        "service_zone": "",
        "file_flush_interval": duration(flush_interval),
        "drain_time": duration(drain_time),
        "drain_strategy": "Immediate",
        "parent_shutdown_time": "0s",
        "mode": "Serve",
        "disable_hot_restart": true,
        "enable_mutex_tracing": false,
        "restart_epoch": 0,
        "cpuset_threads": false,
        "disabled_extensions": [],
        "enable_fine_grain_logging": false,
        "enable_core_dump": false,
        "stats_tag": [],
    })
}

/// Reads the bootstrap; the outer error is one of reading the file.
fn read(
    arguments: &Arguments,
    extensions: &Extensions,
) -> anyhow::Result<Result<Bootstrap, ConfigError>> {
    let mut sources = Sources::default();
    if let Some(path) = &arguments.config_path {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        sources.push(&path.display().to_string(), &text);
    }
    if let Some(text) = &arguments.config_yaml {
        sources.push("--config-yaml", text);
    }
    anyhow::ensure!(
        sources.iter().next().is_some(),
        "a configuration is needed: --config-path or --config-yaml"
    );
    Ok(Bootstrap::read(&Schema::new(), extensions, sources).map(|mut bootstrap| {
        if arguments.allow_unknown_static_fields {
            bootstrap.allow_unknown_fields();
        }
        let node = bootstrap.node_mut();
        let fill = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        fill(&mut node.id, &arguments.service_node);
        fill(&mut node.cluster, &arguments.service_cluster);
        if !arguments.service_zone.is_empty() {
            fill(&mut node.locality.get_or_insert_default().zone, &arguments.service_zone);
        }
        bootstrap
    }))
}

/// The verdict on a configuration.
fn tell(name: &str, verdict: Result<(), ConfigError>) -> ExitCode {
    match verdict {
        Ok(()) => {
            say(&format!("configuration '{name}' OK"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            crate::tell(&format!("error initializing configuration '{name}':\n{error}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}

/// `<revision>/<version>/<status>/<build>/<TLS library>`, as Envoy's tools take it apart.
pub fn version() -> String {
    let revision = option_env!("OUTRIGGER_REVISION");
    let status = if revision.is_some() { "Clean" } else { "Modified" };
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!(
        "{}/{}/{status}/{build}/AWS-LC",
        revision.unwrap_or("unreleased"),
        env!("CARGO_PKG_VERSION")
    )
}

fn serve(
    bootstrap: Bootstrap,
    extensions: Extensions,
    options: Options,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = server::start(bootstrap, extensions, options).await?;
        tokio::spawn(crate::memory::give_back());
        if let Some(address) = server.admin_address() {
            tracing::info!("admin address: {address}");
        }
        until_told(server).await
    })
}

/// Serves until a signal or `/quitquitquit`. The second signal ends at once.
async fn until_told(server: Server) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Held so that neither a terminal that goes nor a file that may not grow ends the proxy: the write fails instead.
    let _too_large = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let mut ready = false;
    loop {
        tokio::select! {
            () = server.wait_until_ready(), if !ready => {
                ready = true;
                tracing::info!("all dependencies initialized, serving");
            }
            _ = reopen.recv() => server.reopen_logs(),
            _ = hangup.recv() => tracing::warn!("SIGHUP is ignored, as by Envoy; SIGTERM ends"),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = server.wait_until_quit() => break,
        }
    }
    anyhow::ensure!(!server.has_failed(), "a worker panicked, so that the proxy cannot go on");
    tracing::info!("draining");
    tokio::select! {
        () = server.stop() => {}
        _ = terminate.recv() => tracing::warn!("ending at once"),
        _ = interrupt.recv() => tracing::warn!("ending at once"),
    }
    Ok(ExitCode::SUCCESS)
}
