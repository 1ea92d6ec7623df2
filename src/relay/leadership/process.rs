//! Identity of a process, written so that another one on the same machine sees at once when it has
//! died.

use std::fs;

/// This process, in words that only processes of the same machine and container understand: the
/// start of the machine, the namespace, the number and the start of the process. `None` where the
/// system does not tell.
pub(crate) fn identity() -> Option<String> {
    let place = place()?;
    let pid = std::process::id();
    Some(format!("{place} {pid} {}", started(pid)?))
}

/// Whether a process that described itself so ran here and has ended.
pub(in crate::relay) fn has_ended(identity: &str) -> bool {
    let Some((place_of, process)) = identity.rsplit_once(' ').and_then(|(rest, start)| {
        let (place, pid) = rest.rsplit_once(' ')?;
        Some((place, (pid.parse().ok()?, start)))
    }) else {
        return false;
    };
    let (pid, start) = process;
    place().as_deref() == Some(place_of)
        && match started(pid) {
            Some(now) => now != start,
            // A process that cannot be read may be another user's: only a number that is free tells
            // something.
            None => is_free(pid),
        }
}

/// Whether no process has this number.
fn is_free(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// The machine's start and the namespace in which process numbers mean the same.
fn place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Start of a process, in ticks since the machine did, or "ended" for one whose parent has not
/// asked for its end; `None` when it cannot be read.
fn started(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, also parentheses.
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let ended = matches!(state, "Z" | "X");
    if ended { Some("ended".to_owned()) } else { fields.nth(18).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_has_ended_when_it_was_here_and_is_gone() {
        let ours = identity().unwrap();
        assert!(!has_ended(&ours));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let place = place().unwrap();
        let theirs = format!("{place} {} {}", child.id(), started(child.id()).unwrap());
        assert!(!has_ended(&theirs));
        // What another user's process hides of itself says nothing; its number does.
        assert!(!is_free(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&theirs));
        assert!(is_free(child.id()));
        // A later process of the same number is another one.
        assert!(has_ended(&format!("{place} {} 1", std::process::id())));
        // What runs elsewhere is not for us to tell.
        assert!(!has_ended("another-boot pid:[1] 1 1") && !has_ended("") && !has_ended("x"));
    }
}
