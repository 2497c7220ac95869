//! `cargo bench --bench ack`: how fast the running gateway acknowledges, beside a bare hyper echo and beside the disk, all in one run.
//!
//! Rounds are interleaved (echo, gateway, echo, gateway, …), ratios are taken inside a round, and medians over the rounds, so that
//! what else goes on on the machine hits both. Asserts nothing about time; a reply that is no acknowledgement ends it.

mod disk;
mod generator;
mod servers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use hdrhistogram::Histogram;
use serde::Serialize;

use generator::{Pushes, closed_loop, open_loop};
use servers::{Server, serve_echo};

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
struct Options {
    /// Rounds of echo and gateway.
    #[arg(long, env = "ACK_ROUNDS", default_value_t = 5)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, env = "ACK_SECONDS", default_value_t = 3)]
    seconds: u64,
    #[arg(long, env = "ACK_CONNECTIONS", default_value_t = 64)]
    connections: usize,
    /// Pushes a second in the open loop.
    #[arg(long, env = "ACK_RATE", default_value_t = 1000)]
    rate: u32,
    /// Also deliver to a file sink while pushes are accepted.
    #[arg(long)]
    sink: bool,
    /// The echo in place of the gateway too: shows what the measurement itself makes of two equals.
    #[arg(long)]
    against_itself: bool,
    /// Where the journal and the disk's yardstick are; a directory under it is made and removed.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One server in one closed-loop round.
#[derive(Debug, Clone, Copy, Serialize)]
struct Speed {
    per_second: f64,
    per_cpu_second: f64,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    rounds: Vec<[Speed; 2]>,
    /// Medians over the rounds of gateway ÷ echo.
    ratio_per_second: f64,
    ratio_per_cpu_second: f64,
    echo_ack_ms: Percentiles,
    gateway_ack_ms: Percentiles,
    fdatasync_ms: Percentiles,
    ratio_ack_p99_to_fdatasync_p99: f64,
    gateway_rss_idle_mib: f64,
    gateway_rss_end_mib: f64,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("echo") {
        return runtime.block_on(serve_echo());
    }
    let options = Options::parse();
    std::fs::create_dir_all(&options.dir)?;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let figures = runtime.block_on(measure(&options, dir.path()))?;
    print(&figures);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}

async fn measure(options: &Options, dir: &Path) -> Result<Figures> {
    let time = Duration::from_secs(options.seconds);
    let pushes = Arc::new(Pushes::new());
    let echo = Server::echo()?;
    let gateway = if options.against_itself { Server::echo()? } else { Server::gateway(dir, options.sink)? };
    let gateway_rss_idle_mib = gateway.rss_mib()?;
    for server in [&echo, &gateway] {
        closed_loop(server.addr, &pushes, options.connections, WARM_UP).await?;
    }

    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let of_echo = speed(&echo, &pushes, options.connections, time).await?;
        rounds.push([of_echo, speed(&gateway, &pushes, options.connections, time).await?]);
    }

    let mut latencies = [Histogram::new(3)?, Histogram::new(3)?, Histogram::new(3)?];
    for _ in 0..options.rounds {
        latencies[0].add(open_loop(echo.addr, &pushes, options.connections, options.rate, time).await?)?;
        latencies[1].add(open_loop(gateway.addr, &pushes, options.connections, options.rate, time).await?)?;
        latencies[2].add(disk::sync_latencies(dir, options.rate, time)?)?;
    }

    let [echo_ack_ms, gateway_ack_ms, fdatasync_ms] = latencies.each_ref().map(percentiles);
    Ok(Figures {
        ratio_per_second: median(&rounds, |[echo, gateway]| gateway.per_second / echo.per_second),
        ratio_per_cpu_second: median(&rounds, |[echo, gateway]| gateway.per_cpu_second / echo.per_cpu_second),
        ratio_ack_p99_to_fdatasync_p99: gateway_ack_ms.p99 / fdatasync_ms.p99,
        rounds,
        echo_ack_ms,
        gateway_ack_ms,
        fdatasync_ms,
        gateway_rss_idle_mib,
        gateway_rss_end_mib: gateway.rss_mib()?,
    })
}

async fn speed(server: &Server, pushes: &Arc<Pushes>, connections: usize, time: Duration) -> Result<Speed> {
    let cpu_before = server.cpu_seconds()?;
    let (acknowledged, elapsed) = closed_loop(server.addr, pushes, connections, time).await?;
    let cpu_seconds = server.cpu_seconds()? - cpu_before;
    let acknowledged = acknowledged as f64;
    Ok(Speed { per_second: acknowledged / elapsed.as_secs_f64(), per_cpu_second: acknowledged / cpu_seconds })
}

fn percentiles(latencies_us: &Histogram<u64>) -> Percentiles {
    let at = |quantile| latencies_us.value_at_quantile(quantile) as f64 / 1e3;
    Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
}

fn median<T>(of: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    let mut figures: Vec<f64> = of.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        even if even.is_multiple_of(2) => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

fn print(figures: &Figures) {
    println!("closed loop      echo/s  gateway/s   RATIO   echo/cpu-s  gateway/cpu-s   RATIO");
    let row = |name: &str, [echo, gateway]: [Speed; 2], per_second: f64, per_cpu_second: f64| {
        println!(
            "{name:<12} {:>10.0} {:>10.0} {per_second:>7.2} {:>12.0} {:>14.0} {per_cpu_second:>7.2}",
            echo.per_second, gateway.per_second, echo.per_cpu_second, gateway.per_cpu_second
        );
    };
    for (number, [echo, gateway]) in figures.rounds.iter().copied().enumerate() {
        let ratios = (gateway.per_second / echo.per_second, gateway.per_cpu_second / echo.per_cpu_second);
        row(&format!("round {}", number + 1), [echo, gateway], ratios.0, ratios.1);
    }
    let middle = |server: usize| Speed {
        per_second: median(&figures.rounds, |round| round[server].per_second),
        per_cpu_second: median(&figures.rounds, |round| round[server].per_cpu_second),
    };
    row("median", [middle(0), middle(1)], figures.ratio_per_second, figures.ratio_per_cpu_second);
    let cpu_us = |server| 1e6 / middle(server).per_cpu_second;
    println!("CPU per push: echo {:.1} us, gateway {:.1} us", cpu_us(0), cpu_us(1));
    println!("\nopen loop, ms       p50      p90      p99    p99.9      max");
    for (name, at) in
        [("echo", &figures.echo_ack_ms), ("gateway", &figures.gateway_ack_ms), ("fdatasync", &figures.fdatasync_ms)]
    {
        println!("{name:<14} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2}", at.p50, at.p90, at.p99, at.p999, at.max);
    }
    println!("gateway ack p99 / fdatasync p99: RATIO {:.2}", figures.ratio_ack_p99_to_fdatasync_p99);
    println!(
        "\ngateway RSS: {:.1} MiB idle, {:.1} MiB at the end",
        figures.gateway_rss_idle_mib, figures.gateway_rss_end_mib
    );
}
