//! Finds the programs of the servers: the ones that environment variables name, else those in the
//! project's `.tools`, on PATH, or in the directories of Debian and Homebrew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::ServerError;

const POSTGRES_MAJOR_MIN: u32 = 14;
const NATS_MINOR_MIN: u32 = 12;
const PGBOUNCER_MINOR_MIN: u32 = 18;

/// The environment variable that names the directory of the Postgres programs to use, even if there
/// are others.
const POSTGRES_CHOICE: &str = "POSTRIDER_TEST_PG_BIN";

/// The environment variable that names the `nats-server` program to use, even if there are others.
const NATS_CHOICE: &str = "POSTRIDER_TEST_NATS";

/// Directories with a directory for each Postgres version: Debian, Homebrew, PGDG's RPMs.
const POSTGRES_PARENTS: [&str; 5] =
    ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr/local/Cellar", "/usr"];

/// The directory of the Postgres server programs (14 or later): the one that
/// `POSTRIDER_TEST_PG_BIN` names, else the newest.
///
/// # Errors
/// [`ServerError::Missing`] when there is none.
pub fn postgres_bin() -> Result<PathBuf, ServerError> {
    let candidates: Vec<PathBuf> = match env::var_os(POSTGRES_CHOICE) {
        Some(bin) => vec![PathBuf::from(bin)],
        None => path_directories()
            .into_iter()
            .chain(POSTGRES_PARENTS.iter().flat_map(|parent| children(Path::new(parent))))
            .collect(),
    };
    let mut found: Vec<(u32, PathBuf)> = candidates
        .into_iter()
        .filter(|bin| bin.join("initdb").is_file())
        .filter_map(|bin| Some((version(&bin.join("postgres"))?.0, bin)))
        .collect();
    // A stable sort: of equal versions, the one that comes first on PATH wins.
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let newest = found.into_iter().next();
    match newest {
        Some((major, bin)) if major >= POSTGRES_MAJOR_MIN => Ok(bin),
        other => Err(ServerError::Missing {
            program: "Postgres server 14 or later",
            seen: other.map_or(String::new(), |(major, bin)| {
                format!(" (found {major} in {})", bin.display())
            }),
        }),
    }
}

/// The `nats-server` program (2.12 or later): the one that `POSTRIDER_TEST_NATS` names, else the
/// first of `.tools` and PATH.
///
/// # Errors
/// [`ServerError::Missing`] when there is none.
pub fn nats_server() -> Result<PathBuf, ServerError> {
    let mut seen = String::new();
    let programs: Vec<PathBuf> = match env::var_os(NATS_CHOICE) {
        Some(program) => vec![PathBuf::from(program)],
        None => tools_directories()
            .into_iter()
            .chain(path_directories())
            .map(|directory| directory.join("nats-server"))
            .collect(),
    };
    for program in programs {
        match version(&program) {
            Some(found) if found >= (2, NATS_MINOR_MIN) => return Ok(program),
            Some((major, minor)) => {
                seen = format!(" (found {major}.{minor} at {})", program.display());
            }
            None => {}
        }
    }
    Err(ServerError::Missing { program: "nats-server 2.12 or later", seen })
}

/// The `pgbouncer` program (1.18 or later): the one that `POSTRIDER_TEST_PGBOUNCER` names, else the
/// first on PATH, else Debian's.
///
/// # Errors
/// [`ServerError::Missing`] when there is none.
pub fn pgbouncer() -> Result<PathBuf, ServerError> {
    if let Some(program) = env::var_os("POSTRIDER_TEST_PGBOUNCER") {
        return Ok(program.into());
    }
    let mut seen = String::new();
    // Debian's directory of daemons is on root's PATH only.
    for directory in path_directories().into_iter().chain([PathBuf::from("/usr/sbin")]) {
        let program = directory.join("pgbouncer");
        match version(&program) {
            Some(found) if found >= (1, PGBOUNCER_MINOR_MIN) => return Ok(program),
            Some((major, minor)) => {
                seen = format!(" (found {major}.{minor} at {})", program.display());
            }
            None => {}
        }
    }
    Err(ServerError::Missing { program: "PgBouncer 1.18 or later", seen })
}

/// The directories where the project's `.tools/bin` may be: below the working directory, and below
/// each directory above this program, which a build puts into `target/<profile>/`.
fn tools_directories() -> Vec<PathBuf> {
    let here = env::current_dir().ok();
    let program = env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().skip(1));
    here.iter().map(PathBuf::as_path).chain(above).map(|root| root.join(".tools/bin")).collect()
}

fn path_directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let homebrew = ["/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(homebrew).collect()
}

fn children(parent: &Path) -> Vec<PathBuf> {
    let named_postgres = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("postgresql") || name.starts_with("pgsql-") || name.parse::<u32>().is_ok()
    };
    fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| named_postgres(path))
        .map(|path| path.join("bin"))
        .collect()
}

/// Major and minor version as `program --version` prints them; `None` when it cannot be run.
fn version(program: &Path) -> Option<(u32, u32)> {
    if !program.is_file() {
        return None;
    }
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    let digits = |part: &str| {
        part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok()
    };
    let mut parts = text.get(start..)?.split('.');
    let major = digits(parts.next()?)?;
    Some((major, parts.next().and_then(digits).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(parse_version("nats-server: v2.12.1\n"), Some((2, 12)));
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)"),
            Some((15, 8))
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(parse_version("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n"), Some((1, 18)));
        assert_eq!(parse_version("no number"), None);
    }
}
