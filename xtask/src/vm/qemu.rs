//! One boot: kernel messages to a file, results through a serial port of their own.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Lockdown, kernel::Kernel};

pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// What the machine said.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) kernel: String,
    pub(super) matrix: Value,
    /// Reports by the names of the labs that stood side by side.
    pub(super) labs: Value,
}

/// How long a machine is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// One boot, from its start.
    pub(super) patience: Duration,
    /// Of all boots.
    pub(super) deadline: Instant,
}

/// A machine that says nothing for so long has stopped: a scenario takes a few seconds, ten times that where the host is
/// busy.
const STALLED: Duration = Duration::from_secs(180);

/// A machine that sent nothing at all has judged nothing: emulation itself goes wrong now and then (a soft lockup was
/// seen on a starved machine), and such a one is booted once more. Whatever results there are stand.
pub(super) fn boot(
    directory: &Path,
    kernel: &Kernel,
    archive: &[u8],
    lockdown: Lockdown,
    patience: Patience,
) -> anyhow::Result<Results> {
    match boot_once(directory, kernel, archive, lockdown, patience) {
        Err(error) if error.is::<Silent>() => {
            if Instant::now() > patience.deadline {
                return Err(error);
            }
            // There may be none: QEMU itself did not start.
            let (console, kept) = (directory.join(CONSOLE), directory.join("console-of-the-first-boot.log"));
            if console.exists() {
                fs::rename(&console, &kept).with_context(|| format!("cannot keep {}", console.display()))?;
            }
            eprintln!("    BOOTED ONCE MORE (the first console: {}): {error}", kept.display());
            boot_once(directory, kernel, archive, lockdown, patience)
        }
        ended => ended,
    }
}

/// The machine ended, or had to be ended, without a word of results, and not by a panic of what runs in it.
#[derive(Debug, thiserror::Error)]
#[error("the machine sent no results (QEMU: {how}){tails}")]
struct Silent {
    how: String,
    tails: String,
}

const CONSOLE: &str = "console.log";

/// Boots, waits until it powers off, and reads the results. Files are left in `directory` for whoever wants to look.
fn boot_once(
    directory: &Path,
    kernel: &Kernel,
    archive: &[u8],
    lockdown: Lockdown,
    patience: Patience,
) -> anyhow::Result<Results> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let [initramfs, console, results] = ["initramfs.cpio", CONSOLE, "results.txt"].map(|name| directory.join(name));
    // An earlier run's must not pass for this one's.
    for old in [&console, &results] {
        if let Err(error) = fs::remove_file(old)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove {}", old.display()));
        }
    }
    fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
    // Where the host is busy the timer's test at boot fails, and the kernel panics: it is for real hardware.
    let mut append = "console=ttyS0 panic=-1 loglevel=6 no_timer_check".to_owned();
    if lockdown != Lockdown::None {
        append.push_str(&format!(" lockdown={}", lockdown.as_str()));
    }
    let mut qemu = Command::new(PROGRAM);
    // Software emulation everywhere: a /dev/kvm inside a virtual machine may be there and end QEMU nevertheless.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(file(&console)).arg("-serial").arg(file(&results));
    qemu.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(&initramfs).args(["-append", &append]);
    let complaints = directory.join("qemu.log");
    qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&complaints)?);

    let started = Instant::now();
    let mut child = qemu.spawn().with_context(|| format!("cannot run {PROGRAM}"))?;
    let mut progress = Progress { shown: 0, length: 0, grown: started };
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        progress.show(&console);
        if started.elapsed() > patience.patience
            || progress.grown.elapsed() > STALLED
            || Instant::now() > patience.deadline
        {
            child.kill().and_then(|()| child.wait())?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let said = fs::read(&results).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    match parse(&said, lockdown) {
        Ok(results) => Ok(results),
        Err(error) => {
            let killed = || format!("killed after {} s", started.elapsed().as_secs());
            let how = ended.map_or_else(killed, |status| status.to_string());
            let tails = format!("{}{}", tail(&complaints), tail(&console));
            if is_silent(&said, &fs::read(&console).unwrap_or_default()) {
                return Err(Silent { how, tails }.into());
            }
            bail!("{error:#} (QEMU: {how}){tails}")
        }
    }
}

/// No results were begun, no scenario was judged, and the kernel did not panic once its first process ran.
fn is_silent(results: &str, console: &[u8]) -> bool {
    let console = String::from_utf8_lossy(console);
    let panic = console.contains(STARTED) && console.contains("Kernel panic");
    !(results.contains("begin") || console.contains(JUDGED) || panic)
}

/// What init.sh says first.
const STARTED: &str = "init: started";

/// What the matrix says of every scenario, whatever it came to.
const JUDGED: &str = " as expected (";

/// How much of the console was shown, and when it last grew.
struct Progress {
    shown: usize,
    length: usize,
    grown: Instant,
}

impl Progress {
    /// Repeats what the matrix says of each scenario as it ends.
    fn show(&mut self, console: &Path) {
        let text = fs::read(console).unwrap_or_default();
        if text.len() > self.length {
            (self.length, self.grown) = (text.len(), Instant::now());
        }
        let Some(new) = text.get(self.shown..) else { return };
        let Some(end) = new.iter().rposition(|&byte| byte == b'\n') else { return };
        for line in String::from_utf8_lossy(&new[..end]).lines().filter(|line| line.contains(JUDGED)) {
            eprintln!("    {}", line.trim());
        }
        self.shown += end + 1;
    }
}

fn file(path: &Path) -> String {
    // A comma begins an option; doubled it is one of the path.
    format!("file:{}", path.display().to_string().replace(',', ",,"))
}

/// The last lines of a file, for an error message.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(15)..];
    format!("\n  end of {}:\n    {}", path.display(), last.join("\n    "))
}

/// begin, `kernel`, `lockdown`, `exit`, the matrix and the reports of single labs as JSON, end.
fn parse(said: &str, lockdown: Lockdown) -> anyhow::Result<Results> {
    let said = said.replace('\r', "");
    let body = said.split_once("begin\n").map(|(_, body)| body).context("the machine sent no results")?;
    let body = body.trim_end().strip_suffix("\nend").context("the results are cut short")?;
    let mut lines = body.splitn(4, '\n');
    let mut field = |name: &str| {
        let value = lines.next().and_then(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        value.with_context(|| format!("no {name} in the results"))
    };
    let (kernel, level, code) = (field("kernel ")?, field("lockdown ")?, field("exit ")?);
    let wanted = format!("[{}]", lockdown.as_str());
    if !level.contains(&wanted) {
        bail!("the kernel is not at lockdown {} but says {level:?}", lockdown.as_str());
    }
    let json = lines.next().unwrap_or_default();
    let mut all: Value =
        serde_json::from_str(json).with_context(|| format!("the matrix ended with {code} and no JSON"))?;
    Ok(Results { kernel, matrix: all["matrix"].take(), labs: all["labs"].take() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "begin\r\nkernel 6.1.0-56-cloud-amd64\nlockdown none [integrity] confidentiality\nexit 0\n\
                        {\"matrix\":\n{\n  \"scenarios\": []\n}\n, \"labs\": {\n\"a\":\n{}\n}}\nend\n";

    #[test]
    fn results_are_framed() {
        let results = parse(SAID, Lockdown::Integrity).unwrap();
        assert_eq!(results.kernel, "6.1.0-56-cloud-amd64");
        assert!(results.matrix["scenarios"].is_array());
        assert!(results.labs["a"].is_object() && results.labs["b"].is_null());
    }

    #[test]
    fn results_that_are_not_whole_are_none() {
        assert!(parse("", Lockdown::Integrity).is_err());
        assert!(parse(SAID.strip_suffix("end\n").unwrap(), Lockdown::Integrity).is_err());
        assert!(parse(&SAID.replace("\"scenarios\": []", "kernel: oops"), Lockdown::Integrity).is_err());
    }

    #[test]
    fn only_a_machine_that_judged_nothing_is_booted_again() {
        let stuck = b"[   31.2] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\n";
        assert!(is_silent("", b"") && is_silent("", stuck));
        assert!(!is_silent("begin\nkernel 6.1", stuck));
        assert!(!is_silent("", b"reply-lost: NOT as expected (3006 ms)\n"));
        assert!(is_silent("", b"[    0.1] Kernel panic - not syncing: IO-APIC + timer doesn't work!\n"));
        assert!(!is_silent("", b"init: started\n[    9.1] Kernel panic - not syncing: Attempted to kill init!\n"));
    }

    #[test]
    fn another_lockdown_than_asked_for_is_an_error() {
        assert!(parse(SAID, Lockdown::Confidentiality).is_err());
    }
}
