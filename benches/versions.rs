// Of both build scripts: what a package depends on, as its lock file has it.

/// The version of each direct dependency of a package that has one of these names, as in `kanal 0.1.1, rayon 1.12.0`.
pub(crate) fn versions(lock: &str, package: &str, names: &[&str]) -> String {
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let blocks: Vec<&str> = lock.split("[[package]]").collect();
    let own = blocks.iter().find(|block| field(block, "name").as_deref() == Some(package));
    let wanted = |line: &&str| names.contains(&line.split(' ').next().unwrap_or_default());
    let dependencies = own.iter().flat_map(|block| block.lines());
    let dependencies = dependencies.map(|line| line.trim().trim_matches([',', '"'])).filter(wanted);
    let version = |line: &str| {
        // With a version behind the name, if the lock file has several of that name.
        if line.contains(' ') {
            return line.to_owned();
        }
        let of = blocks.iter().find(|block| field(block, "name").as_deref() == Some(line));
        format!("{line} {}", of.and_then(|block| field(block, "version")).unwrap_or_default())
    };
    dependencies.map(version).collect::<Vec<_>>().join(", ")
}
