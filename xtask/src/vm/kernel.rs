//! Debian's cloud kernels, fetched once with apt and unpacked beside the build.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    setup,
    step::{step, succeed},
};

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    directory: PathBuf,
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }

    /// `CONFIG_<option>=y`.
    pub(super) fn is_built_in(&self, option: &str) -> anyhow::Result<bool> {
        let path = self.directory.join("boot").join(format!("config-{}", self.release));
        let config = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wanted = format!("CONFIG_{option}=y");
        Ok(config.lines().any(|line| line == wanted))
    }
}

/// The newest kernel of a series ("6.1"): an unpacked one if there is any, else from Debian.
pub(super) fn get(cache: &Path, series: &str) -> anyhow::Result<Kernel> {
    let package = match newest(unpacked(cache), series) {
        Some(package) => package,
        None => {
            let offered = || -> anyhow::Result<_> { Ok(newest(offered()?, series)) };
            let package = match offered()? {
                Some(package) => package,
                None => {
                    setup::update_lists()?;
                    offered()?.with_context(|| {
                        format!(
                            "apt offers no {PREFIX}{series}*{SUFFIX}: for 6.12 on Debian 12, is the backports or \
                                 security source there?"
                        )
                    })?
                }
            };
            fetch(cache, &package)?;
            package
        }
    };
    let release = package.strip_prefix(PREFIX).unwrap_or(&package).to_owned();
    Ok(Kernel { release, directory: cache.join(&package) })
}

/// A static busybox.
pub(super) fn busybox(cache: &Path) -> anyhow::Result<PathBuf> {
    const PACKAGE: &str = "busybox-static";
    if !cache.join(PACKAGE).is_dir() {
        fetch(cache, PACKAGE)?;
    }
    let candidates = ["bin/busybox", "usr/bin/busybox"].map(|path| cache.join(PACKAGE).join(path));
    candidates.into_iter().find(|path| path.is_file()).context("Debian's busybox-static has no busybox in bin")
}

fn unpacked(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn offered() -> anyhow::Result<Vec<String>> {
    let output = Command::new("apt-cache")
        .args(["search", "--names-only", "linux-image-.*-cloud-amd64$"])
        .output()
        .context("the kernels come from Debian with apt, and apt-cache cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// The newest package of a series. Meta packages (`linux-image-6.12-cloud-amd64`) hold no kernel.
fn newest(packages: Vec<String>, series: &str) -> Option<String> {
    let of_series = |package: &String| {
        let release = package.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        release.and_then(|release| release.strip_prefix(series)).is_some_and(|rest| rest.starts_with('.'))
    };
    packages.into_iter().filter(of_series).max_by(|left, right| by_numbers(left, right))
}

/// 6.12.100 is newer than 6.12.9.
fn by_numbers(left: &str, right: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    numbers(left).cmp(&numbers(right))
}

/// Downloads a package and unpacks it to a directory of its name, which is there only when it is whole.
fn fetch(cache: &Path, package: &str) -> anyhow::Result<()> {
    let part = cache.join(format!("{package}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    step(&format!("fetch {package} from Debian"), || {
        let mut download = Command::new("apt-get");
        succeed(download.args(["-q", "download", package]).current_dir(&part))?;
        let mut files = fs::read_dir(&part)?.flatten().map(|entry| entry.path());
        let Some(deb) = files.find(|path| path.extension().is_some_and(|end| end == "deb")) else {
            bail!("apt-get download {package} left no .deb");
        };
        succeed(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&part))?;
        fs::remove_file(&deb)?;
        fs::rename(&part, cache.join(package))?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_taken() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64.part",
            "linux-image-6.1.0-58-cloud-amd64-dbg",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        let of = |series| newest(packages.map(str::to_owned).to_vec(), series);
        assert_eq!(of("6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(of("6.12").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(of("5.10"), None);
    }
}
