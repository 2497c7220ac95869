//! Named places at which a build with debug assertions can be told to die, so that a test can kill the real process exactly there.
//!
//! `TRUNKLINE_CRASH_AT="<name>"` aborts the process the first time it comes by; `"<name>:3"` the third time. Nothing is flushed and
//! no destructor runs: what is left is what a `kill -9` leaves. A release build holds none of this.

/// Every crash point, in the order in which a push meets them.
pub const ALL: &[&str] = &[
    "journal.before_write",
    "journal.after_write",
    "journal.after_sync",
    "journal.segment_create",
    "journal.segment_rename",
    "journal.segment_seal",
    "journal.ids_write",
    "journal.ids_rename",
    "journal.checkpoint_write",
    "journal.checkpoint_sync",
    "journal.trim_before_remove",
    "journal.trim_after_remove",
    "journal.dead_letter_write",
    "journal.dead_letter_before_checkpoint",
    "journal.compaction_write",
    "journal.compaction_rename",
    "journal.recovery_copy",
    "journal.recovery_rename",
    "dedup.after_claim",
    "dedup.before_confirm",
    "dedup.after_confirm",
];

/// Aborts here if the environment says so; nothing at all in a release build.
#[inline]
pub fn crash_point(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _unused = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        /// How many passes are left before the last one.
        left: AtomicU64,
    }

    fn parse(text: &str) -> Option<Armed> {
        let (name, nth) = text.rsplit_once(':').unwrap_or((text, "1"));
        let nth: u64 = nth.parse().ok()?;
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(nth.max(1)) })
    }

    pub(super) fn pass(name: &'static str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        debug_assert!(super::ALL.contains(&name), "crash point {name} is not in crash::ALL");
        let armed = ARMED.get_or_init(|| std::env::var("TRUNKLINE_CRASH_AT").ok().as_deref().and_then(parse));
        if let Some(armed) = armed
            && armed.name == name
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_point_has_a_name_of_its_own() {
        let mut names = ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn nothing_happens_where_nothing_is_armed() {
        for name in ALL {
            crash_point(name);
        }
    }
}
