//! `hostdns-probe trace`: DNS transactions to and from the address, as they happen.

mod coverage;
mod losses;
mod newcomers;
mod reasons;
mod render;
mod session;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use glob::Pattern;
use tokio::signal::unix::{SignalKind, signal};

use self::session::{Seen, Session};
use crate::{
    cli::{
        Global,
        args::{SourceArgs, TargetArgs},
    },
    commands::Exit,
    ended::Ended,
    printer::{Printer, Stream},
    trace::{
        filter::{self, Filter, NameFilter},
        pcapng,
        summary::Summary,
    },
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TraceArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// End after this long, instead of with Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Tracing")]
    pub duration: Option<Duration>,
    /// End after this many transactions were shown
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Tracing")]
    pub count: Option<u64>,
    /// Follow packets on these interfaces too, by name or glob; may be given several times
    #[arg(long, value_name = "GLOB", value_parser = Pattern::new, help_heading = "Tracing")]
    pub interface: Vec<Pattern>,
    /// Follow packets on every interface of the node
    #[arg(long, help_heading = "Tracing")]
    pub all_interfaces: bool,
    /// Follow one query in N, with its answer, chosen in the kernel by port and DNS id; the output says so
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Tracing")]
    pub sample: Option<u32>,
    /// Only what was asked from here: a pod's name or namespace/name (globs work), `node`, an IP address, or a CIDR
    #[arg(long, value_name = "WHO", help_heading = "Filters (each may be given several times)")]
    pub from: Vec<filter::From>,
    /// Only this name; `.example.com` for all names below it, globs work
    #[arg(long, value_name = "NAME", help_heading = "Filters (each may be given several times)")]
    pub qname: Vec<NameFilter>,
    /// Only this record type: A, AAAA, SRV, TYPE65, ...
    #[arg(long, value_name = "TYPE", help_heading = "Filters (each may be given several times)")]
    pub qtype: Vec<String>,
    /// Only answers with this code: NOERROR, NXDOMAIN, SERVFAIL, ...
    #[arg(long, value_name = "CODE", help_heading = "Filters (each may be given several times)")]
    pub rcode: Vec<String>,
    /// Only what ended like this
    #[arg(long, value_name = "END", value_parser = ended, help_heading = "Filters (each may be given several times)")]
    pub ended: Vec<Ended>,
    /// Only answers that took longer
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Filters (each may be given several times)")]
    pub slower_than: Option<Duration>,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub output: TraceFormat,
    /// Write it to a file instead of stdout
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub output_file: Option<PathBuf>,
    #[command(flatten)]
    pub sources: SourceArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// One line a transaction; with -v its hops below it
    #[default]
    Text,
    /// One object a line: hostdns-probe/transaction/v1
    Json,
    /// One packet per hop, for Wireshark
    Pcapng,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe trace                                       everything, until Ctrl-C
  hostdns-probe trace -v --ended leaked --ended dropped     what fails, hop by hop
  hostdns-probe trace --from 'kube-system/coredns-*' --slower-than 5ms
  hostdns-probe trace --qname .example.com --qtype AAAA --duration 30s --output json
  hostdns-probe trace --output pcapng | wireshark -k -i -

The summary at the end goes to stdout with text, and to stderr with the other forms.
Exit codes: 0 it ran, 2 it could not, 64 wrong usage.";

/// How often what has ended is looked for.
const TICK: Duration = Duration::from_millis(20);

/// # Errors
/// Nothing can be attached, or the output cannot be written.
pub fn run(args: &TraceArgs, global: &Global) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    let exit = runtime.block_on(follow(args, global));
    // Detaching takes a while; the kernel does it when the process ends.
    runtime.shutdown_background();
    exit
}

async fn follow(args: &TraceArgs, global: &Global) -> anyhow::Result<Exit> {
    // One listener each for the whole time: under load hardly any of it is spent waiting.
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut output = Output::open(args, global)?;
    let mut session = Session::start(args).await?;
    if !global.quiet {
        eprintln!("{}", session.opening());
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let out_of_time = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(out_of_time);
    loop {
        // In this order: a flood must not keep it from ending.
        let goes_on = tokio::select! {
            biased;
            _ = interrupted.recv() => false,
            _ = terminated.recv() => false,
            () = &mut out_of_time => false,
            _ = tick.tick() => {
                session.look().await;
                show_all(&mut session, &mut output).await?
            }
            alive = session.read() => {
                anyhow::ensure!(alive, "the tracer has ended; its log says why");
                true
            }
        };
        if !goes_on {
            break;
        }
    }
    if output.wants_more() {
        session.finish().await;
        show_all(&mut session, &mut output).await?;
        let mut more = output.wants_more();
        while more {
            let (lot, rest) = session.last_lot().await;
            more = output.show(&lot)? && rest;
        }
    }
    output.summarize(&session)?;
    Ok(Exit::Ok)
}

/// Shows what has ended by now. False: nobody wants more.
async fn show_all(session: &mut Session, output: &mut Output<'_>) -> anyhow::Result<bool> {
    loop {
        let (lot, more) = session.next_lot().await;
        let wanted = output.show(&lot)?;
        if !(wanted && more) {
            return Ok(wanted);
        }
    }
}

/// What is shown, and where.
struct Output<'a> {
    args: &'a TraceArgs,
    quiet: bool,
    filter: Filter,
    stream: Stream,
    pcapng: Option<pcapng::Writer>,
    columns: render::Columns,
    summary: Summary,
    shown: u64,
    /// The reader has gone away.
    gone: bool,
}

impl<'a> Output<'a> {
    fn open(args: &'a TraceArgs, global: &Global) -> anyhow::Result<Self> {
        let mut stream = Printer::new(global, args.output_file.as_deref()).stream()?;
        let mut pcapng = None;
        let mut gone = false;
        if args.output == TraceFormat::Pcapng {
            gone = !stream.print(|_, out| {
                pcapng = Some(pcapng::Writer::start(out)?);
                Ok(())
            })?;
        }
        Ok(Self {
            args,
            quiet: global.quiet,
            filter: filter_of(args),
            stream,
            pcapng,
            columns: render::Columns::default(),
            summary: Summary::default(),
            shown: 0,
            gone,
        })
    }

    fn wants_more(&self) -> bool {
        !self.gone && self.args.count.is_none_or(|count| self.shown < count)
    }

    /// False: there is nothing more to show, or nobody to show it to.
    fn show(&mut self, seen: &[Seen]) -> anyhow::Result<bool> {
        let Self { args, filter, pcapng, columns, summary, shown, .. } = self;
        let matching = seen.iter().filter(|seen| filter.matches(&seen.transaction));
        let room = args.count.map_or(usize::MAX, |count| usize::try_from(count - *shown).unwrap_or(usize::MAX));
        let chosen: Vec<&Seen> = matching.take(room).collect();
        if !chosen.is_empty() {
            let still_read = self.stream.print(|options, out| {
                for Seen { transaction, events, unix_ns } in &chosen {
                    match args.output {
                        TraceFormat::Text => render::transaction(transaction, columns, options, out)?,
                        TraceFormat::Json => {
                            serde_json::to_writer(&mut *out, transaction)?;
                            writeln!(out)?;
                        }
                        TraceFormat::Pcapng => {
                            if let Some(pcapng) = pcapng.as_mut() {
                                pcapng.transaction(transaction, events, *unix_ns, out)?;
                            }
                        }
                    }
                }
                Ok(())
            })?;
            self.gone |= !still_read;
            *shown += chosen.len() as u64;
            chosen.iter().for_each(|seen| summary.add(&seen.transaction));
        }
        Ok(self.wants_more())
    }

    fn summarize(&mut self, session: &Session) -> anyhow::Result<()> {
        if self.gone {
            return Ok(());
        }
        let mut text = Vec::new();
        render::summary(&self.summary, &session.surroundings(), &mut text)?;
        if self.args.output == TraceFormat::Text {
            self.stream.print(|_, out| out.write_all(&text))?;
        } else if !self.quiet {
            eprint!("{}", String::from_utf8_lossy(&text));
        }
        Ok(())
    }
}

fn filter_of(args: &TraceArgs) -> Filter {
    Filter {
        from: args.from.clone(),
        qname: args.qname.clone(),
        qtype: args.qtype.clone(),
        rcode: args.rcode.clone(),
        ended: args.ended.clone(),
        slower_than: args.slower_than,
    }
}

fn ended(text: &str) -> Result<Ended, String> {
    use Ended::{Answered, Dropped, Leaked, Lost, Malformed, PortUnreachable, Unanswered, Unknown};
    let all = [Answered, Dropped, Leaked, Lost, PortUnreachable, Unanswered, Malformed, Unknown];
    all.into_iter().find(|ended| ended.as_str() == text.replace([' ', '-'], "_")).ok_or_else(|| {
        let words: Vec<_> = all.iter().map(|ended| ended.as_str()).collect();
        format!("one of {}", words.join(", "))
    })
}
