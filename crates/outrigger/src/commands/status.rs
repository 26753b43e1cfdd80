//! `outrigger status`: what runs where.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use apiserver::control_socket::protocol::{ObjectProgress, Status, WorkloadStatus};
use clap::{Args as _, FromArgMatches as _};

use super::Row;
use crate::home::MeshArgs;

/// The row of the table.
pub const ROW: Row = Row { name: "status", command, run };

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// How to show it
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    mesh: MeshArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("status"))
        .about("Show what runs where: workloads, addresses, configuration and certificates")
}

/// Asks the mesh and shows the answer.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(args.mesh.client()?.status())?;
    let text = match args.output {
        Output::Table => table(&status),
        Output::Json => serde_json::to_string_pretty(&status)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The status for people.
fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("mesh", format!("{} (process {}, since {})", status.mesh, status.pid, status.started));
    line("directory", status.directory.clone());
    line("control plane", status.xds_address.clone());
    if !status.gateway.is_empty() {
        line("gateway", status.gateway.join(", "));
    }
    let objects = status.objects.iter().map(|(kind, count)| format!("{count} {kind}"));
    line("objects", objects.collect::<Vec<_>>().join(", "));
    text.push('\n');
    let mut rows = vec![
        [
            "WORKLOAD",
            "STATE",
            "ADDRESS",
            "CONFIG",
            "CERTIFICATE UNTIL",
            "RESTARTS",
            "SERVICE ACCOUNT",
        ]
        .map(str::to_owned),
    ];
    rows.extend(status.workloads.iter().map(row));
    text.push_str(&columns(&rows));
    text.push_str(&troubles(&status.workloads));
    text.push_str(&programmed(&status.programmed));
    if !status.not_run_here.is_empty() {
        let names = status.not_run_here.iter();
        let names = names.map(|name| name.strip_prefix("default/").unwrap_or(name));
        let names = names.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "\nnot run here, having no row in workloads.yaml: {names}");
    }
    if !status.problems.is_empty() {
        text.push_str("\nnot in effect, what was there before still is:\n");
        for problem in &status.problems {
            let _ = writeln!(text, "  {problem}");
        }
    }
    text
}

/// Workloads that take no requests, each with why.
fn troubles(workloads: &[WorkloadStatus]) -> String {
    let troubled = workloads.iter().filter_map(|it| Some((&it.name, it.trouble.as_ref()?)));
    let lines: String = troubled.map(|(name, why)| format!("  {name}: {why}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nnot ready:\n{lines}") }
}

/// Objects that do not do all they say, each with why; and in one line that the others do.
fn programmed(objects: &[ObjectProgress]) -> String {
    let mut text = String::new();
    if objects.is_empty() {
        return text;
    }
    let is_whole = |object: &&ObjectProgress| {
        object.programmed == object.proxies && object.warnings.is_empty()
    };
    let whole = objects.iter().filter(is_whole).count();
    let _ = writeln!(text, "\nin effect: {whole} of {} routing and policy objects", objects.len());
    for object in objects.iter().filter(|object| !is_whole(object)) {
        let ObjectProgress { kind, namespace, name, programmed, proxies, .. } = object;
        let _ = writeln!(
            text,
            "  {kind} {namespace}/{name}: programmed on {programmed} of {proxies} proxies"
        );
        for why in object.rejections.iter().map(|why| format!("rejected by {why}")) {
            let _ = writeln!(text, "    {why}");
        }
        for warning in &object.warnings {
            let _ = writeln!(text, "    {warning}");
        }
    }
    text
}

fn row(workload: &WorkloadStatus) -> [String; 7] {
    let ports = workload.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    [
        workload.name.clone(),
        workload.state.to_string(),
        match workload.address {
            Some(address) if ports.is_empty() => address.to_string(),
            Some(address) => format!("{address}:{ports}"),
            None => "-".to_owned(),
        },
        match workload.synced {
            Some(true) => "synced".to_owned(),
            Some(false) => "not synced".to_owned(),
            None => "-".to_owned(),
        },
        workload.certificate_expires.clone().unwrap_or_else(|| "-".to_owned()),
        workload.restarts.to_string(),
        format!("{}/{}", workload.namespace, workload.service_account),
    ]
}

/// Rows with their columns aligned.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_a_person_asks() {
        let workload = WorkloadStatus {
            name: "reviews-v1".to_owned(),
            namespace: "default".to_owned(),
            service_account: "reviews".to_owned(),
            address: Some([127, 64, 0, 3].into()),
            ports: vec![9080],
            synced: Some(true),
            trouble: Some("the application does not accept".to_owned()),
            ..WorkloadStatus::default()
        };
        let status = Status {
            mesh: "shop".to_owned(),
            workloads: vec![workload],
            problems: vec!["a.yaml:3:1: wrong".to_owned()],
            programmed: vec![
                ObjectProgress {
                    kind: "DestinationRule".to_owned(),
                    proxies: 2,
                    programmed: 2,
                    ..ObjectProgress::default()
                },
                ObjectProgress {
                    kind: "VirtualService".to_owned(),
                    namespace: "default".to_owned(),
                    name: "reviews".to_owned(),
                    proxies: 7,
                    programmed: 6,
                    rejections: vec!["a.default: RDS 80: why".to_owned()],
                    warnings: vec!["spec.http[0].fault: is not translated yet".to_owned()],
                    ..ObjectProgress::default()
                },
            ],
            ..Status::default()
        };
        let text = table(&status);
        let told = "in effect: 1 of 2 routing and policy objects\n\
                    \u{20}\u{20}VirtualService default/reviews: programmed on 6 of 7 proxies\n\
                    \u{20}\u{20}\u{20}\u{20}rejected by a.default: RDS 80: why\n\
                    \u{20}\u{20}\u{20}\u{20}spec.http[0].fault: is not translated yet\n";
        assert!(text.contains(told), "{text}");
        assert!(text.contains("reviews-v1  starting  127.64.0.3:9080  synced  -"), "{text}");
        assert!(
            text.contains("\nnot ready:\n  reviews-v1: the application does not accept\n"),
            "{text}"
        );
        assert!(text.ends_with("  a.yaml:3:1: wrong\n"), "{text}");
    }
}
