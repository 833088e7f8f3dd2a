//! Results in files: what was measured, of whom, on which machine and when.
//!
//! Each table has a file of its own, `target/bench/<title>.json` in the workspace, whoever runs it and from where;
//! `POLYPROC_RESULTS` names another folder. The file holds an array of [`Run`]s, the latest last: a run adds itself. Runs
//! under `--test` measure nothing, and are kept only in a folder that is named.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// One run of one table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    /// What the table is headed with.
    pub title: String,
    /// The bench that it is part of, such as `queue`: a figure is drawn of each.
    pub area: String,
    /// Who was measured, the reference first.
    pub rows: Vec<Row>,
    /// Single events, each timed by itself.
    #[serde(default)]
    pub spreads: Vec<Spread>,
    /// Who got how much of what all wanted.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// How it was measured.
    #[serde(default)]
    pub how: How,
    /// What it is one figure of, if there are several.
    #[serde(default)]
    pub series: Option<Series>,
    /// What is measured beside ours, in which version.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// Where and when.
    pub machine: Machine,
}

/// How something was measured.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct How {
    /// How many rounds counted.
    pub rounds: usize,
    /// What went before them.
    pub warm_up: String,
    /// Whether it was shortened: fewer rounds, and fewer repetitions in each.
    pub is_quick: bool,
}

/// Tables that differ by a number, of which a curve is drawn.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Series {
    /// What all of them measure.
    pub name: String,
    /// What the number counts: `processes`, `bytes` or `pairs`.
    pub axis: String,
    /// The number.
    pub at: u64,
}

/// One subject's times of an operation, in nanoseconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Its name.
    pub who: String,
    /// One a round, in the order of the rounds.
    pub rounds_ns: Vec<f64>,
    /// Their median.
    pub median_ns: f64,
    /// The least of them.
    pub least_ns: f64,
    /// The median of its ratios to the reference, taken round by round.
    pub ratio: f64,
    /// The largest of these ratios.
    pub worst_ratio: f64,
    /// Where its processes or threads ran.
    #[serde(default)]
    pub pinned: String,
}

/// How the times of many single events are spread, in nanoseconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spread {
    /// Whose.
    pub who: String,
    /// How many.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_ns: f64,
    /// 99 of 100 took no longer.
    pub p99_ns: f64,
    /// 999 of 1,000 took no longer.
    pub p999_ns: f64,
    /// None took longer.
    pub max_ns: f64,
    /// Where its processes or threads ran.
    #[serde(default)]
    pub pinned: String,
}

/// How evenly something is shared, and how long one waits for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Share {
    /// What is shared.
    pub who: String,
    /// What the luckiest got, 1 being its fair part: the median of the rounds.
    pub luckiest: f64,
    /// What the unluckiest got, likewise.
    pub unluckiest: f64,
    /// The longest wait of anybody, in nanoseconds: the median of the rounds.
    pub longest_ns: f64,
    /// The longest wait of anybody in any round.
    pub worst_longest_ns: f64,
    /// The longest wait of anybody in each round.
    #[serde(default)]
    pub longest_rounds_ns: Vec<f64>,
    /// How long one had it each time, and did not: nanoseconds a turn of all together, the median of the rounds.
    pub turn_ns: f64,
    /// Where its processes or threads ran.
    #[serde(default)]
    pub pinned: String,
}

/// Where and when a run was made, and of what.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many processors there are.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The C library.
    #[serde(default)]
    pub libc: String,
    /// The commit, with `+` if files differ from it; `unknown` without git.
    pub commit: String,
    /// The end of the run, in Greenwich, as in `2026-11-24 09:30:00.250`.
    pub time: String,
    /// How many threads wanted to run in the minute before: above a few tenths, the machine was not quiet.
    pub load: String,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "));
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Machine {
            cpu: cpu.map_or("unknown", |(_, name)| name).trim().to_owned(),
            cpus: crate::cpu_count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: env!("POLYPROC_RUSTC").to_owned(),
            libc: libc_version(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            time: format!("{} {}", date(millis / DAY), time_of_day(millis % DAY)),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { cpu, cpus, kernel, rustc, libc, commit, time, load } = self;
        write!(
            f,
            "{time}: {cpus} CPUs ({cpu}), Linux {kernel}, {libc}, {rustc}, commit {commit}, load {load}"
        )
    }
}

#[cfg(target_env = "gnu")]
fn libc_version() -> String {
    // SAFETY: asks for nothing.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: a string that lives for ever.
    let version = unsafe { core::ffi::CStr::from_ptr(version) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(target_env = "gnu"))]
fn libc_version() -> String {
    "unknown".to_owned()
}

/// What is measured beside ours, in which version.
static VERSIONS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Notes versions of what is measured beside ours, as in `kanal 0.1.1, rayon 1.12.0`: they are part of every result from now on.
pub fn note_versions(list: &str) {
    let mut versions = VERSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let pairs = list.split(", ").filter_map(|entry| entry.rsplit_once(' '));
    versions.extend(pairs.map(|(name, version)| (name.to_owned(), version.to_owned())));
}

/// All that were noted.
pub(crate) fn versions() -> BTreeMap<String, String> {
    let mut versions = VERSIONS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (name, version) in env!("POLYPROC_VERSIONS").split(", ").filter_map(|entry| entry.rsplit_once(' ')) {
        versions.entry(name.to_owned()).or_insert_with(|| version.to_owned());
    }
    versions
}

/// The commit of the sources, if git tells.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(workspace()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

/// The day that is so many days after the first of 1970.
fn date(days: u64) -> String {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

/// A day's milliseconds.
const DAY: u64 = 86_400_000;

/// The time that is so many milliseconds after midnight.
fn time_of_day(millis: u64) -> String {
    let seconds = millis / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, millis % 1000)
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the benches are a folder of the workspace")
}

/// The folder that `POLYPROC_RESULTS` names, or `target/bench` in the workspace.
pub fn folder() -> PathBuf {
    match std::env::var_os("POLYPROC_RESULTS") {
        Some(named) => named.into(),
        None => workspace().join("target/bench"),
    }
}

/// The program's name, without what cargo adds to it; behind the name of its package, if that is another than this one's.
pub(crate) fn area() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = match name.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()) => name,
        _ => &name,
    };
    match std::env::var("CARGO_PKG_NAME") {
        Ok(package) if package != env!("CARGO_PKG_NAME") => {
            format!("{}-{name}", package.trim_start_matches("polyproc-"))
        }
        _ => name.to_owned(),
    }
}

/// Letters and digits of a title, in small letters, with a `-` for whatever is between them.
fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

impl Run {
    /// Adds itself to its table's file in a folder.
    ///
    /// # Errors
    ///
    /// If the folder or the file cannot be written, or the file holds something else.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}-{}.json", self.area, slug(&self.title)));
        let mut runs = if path.exists() { load(&path)? } else { Vec::new() };
        runs.push(self.clone());
        // Whole or not at all, though it be interrupted.
        let draft = path.with_extension("draft");
        std::fs::write(&draft, serde_json::to_string_pretty(&runs)? + "\n")?;
        std::fs::rename(draft, path)
    }

    /// As [`save`](Run::save), in the usual folder, unless nothing was measured. What prevents it is told on stderr: the
    /// figures are printed, and must not be lost for a file.
    pub(crate) fn keep(&self) {
        if crate::is_test() && std::env::var_os("POLYPROC_RESULTS").is_none() {
            return;
        }
        let folder = folder();
        if let Err(error) = self.save(&folder) {
            eprintln!("not kept in {}: {error}", folder.display());
        }
    }
}

/// All runs of a table's file, the latest last.
///
/// # Errors
///
/// If the file cannot be read, or does not hold runs.
pub fn load(path: &Path) -> std::io::Result<Vec<Run>> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_322, "2000-12-31"),
            (20_781, "2026-11-24"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn milliseconds_have_times() {
        assert_eq!(time_of_day(DAY - 1), "23:59:59.999");
        assert_eq!(time_of_day(3_661_002), "01:01:01.002");
    }

    #[test]
    fn versions_are_noted() {
        note_versions("faster-fifo 1.5.2, Python 3.11.7");
        let versions = versions();
        assert_eq!(versions["Python"], "3.11.7");
        for name in ["crossbeam-channel", "parking_lot", "rayon"] {
            assert!(versions[name].starts_with(|c: char| c.is_ascii_digit()), "{versions:?}");
        }
        assert!(Machine::here().to_string().contains("Linux"));
    }

    #[test]
    fn results_of_earlier_times_can_be_read() {
        let old = r#"[{"title":"t","area":"a","rows":[],"machine":{"cpu":"c","cpus":2,"kernel":"k","rustc":"r","commit":"0",
            "time":"2026-11-24 09:30:00.250","load":"0.1"}}]"#;
        let runs: Vec<Run> = serde_json::from_str(old).unwrap();
        assert_eq!((runs[0].how.rounds, runs[0].series.is_none()), (0, true));
    }

    #[test]
    fn titles_become_names_of_files() {
        assert_eq!(slug("counter, 4 x 1000 increments, pinned"), "counter-4-x-1000-increments-pinned");
        assert_eq!(slug("is it set?"), "is-it-set");
    }

    #[test]
    fn the_program_of_a_test_is_named_without_its_hash() {
        assert_eq!(area(), "polyproc_benches");
    }

    #[test]
    fn runs_are_added_and_read() {
        let folder = std::env::temp_dir().join(format!("polyproc-results-{}", std::process::id()));
        let row = Row {
            who: "a ring".to_owned(),
            rounds_ns: vec![1.5, 2.5, 2.0],
            median_ns: 2.0,
            least_ns: 1.5,
            ratio: 1.0,
            worst_ratio: 1.0,
            pinned: "CPU 0".to_owned(),
        };
        let run = Run {
            title: "8 bytes".to_owned(),
            area: "queue".to_owned(),
            rows: vec![row],
            spreads: Vec::new(),
            shares: Vec::new(),
            how: How { rounds: 3, warm_up: "none".to_owned(), is_quick: false },
            series: None,
            versions: versions(),
            machine: Machine::here(),
        };
        run.save(&folder).unwrap();
        run.save(&folder).unwrap();
        let path = folder.join("queue-8-bytes.json");
        let runs = load(&path).unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1].machine, run.machine);
        assert_eq!(runs[1].rows[0].rounds_ns, [1.5, 2.5, 2.0]);
        std::fs::write(&path, "{}").unwrap();
        assert!(run.save(&folder).is_err(), "what is not a list of runs is not overwritten");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
