//! Counts the words in all text files below a folder, and prints the twenty most frequent ones.
//!
//! ```sh
//! cargo run --release --example word_count -- DIR
//! ```
//!
//! A word is a run of ASCII letters, a text a file without a NUL. The same, as a shell pipeline:
//!
//! ```sh
//! LC_ALL=C grep -raLP '\x00' DIR | tr '\n' '\0' | xargs -0 awk 1 | tr -cs A-Za-z '\n' | tr A-Z a-z | grep . |
//!     LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2 | head -20
//! ```

use polyproc::{Pool, cpu_count};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The words of one file, with their numbers; none if it is no text.
fn count_words(file: PathBuf) -> Result<HashMap<String, u64>, String> {
    let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut counts = HashMap::new();
    if !bytes.contains(&0) {
        for word in bytes.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            let word = String::from_utf8_lossy(word).to_ascii_lowercase();
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// All files below a folder. Links are not followed.
fn find_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find_files(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: word_count FOLDER");
        std::process::exit(2);
    };
    let mut files = Vec::new();
    find_files(Path::new(&folder), &mut files)?;

    let pool = Pool::new(cpu_count())?;
    let mut total: HashMap<String, u64> = HashMap::new();
    for counted in pool.batch().progress().imap_unordered(count_words, files) {
        match counted? {
            Ok(counts) => {
                for (word, count) in counts {
                    *total.entry(word).or_insert(0) += count;
                }
            }
            Err(complaint) => eprintln!("{complaint}"),
        }
    }

    let mut words: Vec<(String, u64)> = total.into_iter().collect();
    words.sort_by(|(word, count), (other, others)| others.cmp(count).then(word.cmp(other)));
    for (word, count) in words.iter().take(20) {
        println!("{count:>7} {word}");
    }
    Ok(())
}
