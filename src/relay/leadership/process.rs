//! Identity of a process, by which another process on the same machine sees at once that it has
//! ended.

use std::fs;

/// Identity of this process: the start of the machine, the namespace, the number and the start of
/// the process. `None` where the system does not show them.
pub(crate) fn identity() -> Option<String> {
    let place = place()?;
    let pid = std::process::id();
    Some(format!("{place} {pid} {}", started(pid)?))
}

/// Whether the process with this identity ran on this machine, in this namespace, and has ended.
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
            // An unreadable process may belong to another user. Only a free number proves that it
            // has ended.
            None => is_free(pid),
        }
}

/// Whether no process has this number.
fn is_free(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Start of the machine, and the namespace of process numbers.
fn place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Start of a process, in ticks since the start of the machine, or "ended" for a process that its
/// parent has not waited for. `None` when it cannot be read.
fn started(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, even a parenthesis.
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
        // Another user's process may be unreadable, but its number is in use.
        assert!(!is_free(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&theirs));
        assert!(is_free(child.id()));
        // A later process with the same number is another process.
        assert!(has_ended(&format!("{place} {} 1", std::process::id())));
        // The identity of a process elsewhere proves nothing here.
        assert!(!has_ended("another-boot pid:[1] 1 1") && !has_ended("") && !has_ended("x"));
    }
}
