//! Counts failed logins per address, so that guessing is slowed down and guessers are seen. Only a refusal changes by it (429 in
//! place of 401): right credentials always pass.
//!
//! Bounded: past `addresses_max` further addresses are counted together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub const WINDOW: Duration = Duration::from_secs(60);
/// How often addresses whose window has passed are looked for, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub struct Throttle {
    failures_max: u32,
    addresses_max: usize,
    table: Mutex<Table>,
}

struct Table {
    windows: HashMap<IpAddr, Window>,
    swept_at: Instant,
}

struct Window {
    began_at: Instant,
    failures: u32,
}

impl Throttle {
    /// `failures_max` failed logins of one address within [`WINDOW`] are answered with 401.
    pub fn new(failures_max: u32, addresses_max: usize) -> Self {
        let table = Mutex::new(Table { windows: HashMap::new(), swept_at: Instant::now() });
        Self { failures_max, addresses_max, table }
    }

    /// Counts a failed login from `client` at `now`. Past the limit it says in how many seconds the client may fail again.
    pub fn failed(&self, client: IpAddr, now: Instant) -> Option<u64> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = subnet(client);
        if table.windows.len() >= self.addresses_max && !table.windows.contains_key(&key) {
            table.sweep(now);
            if table.windows.len() >= self.addresses_max {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let window = table.windows.entry(key).or_insert(Window { began_at: now, failures: 0 });
        if now.duration_since(window.began_at) >= WINDOW {
            *window = Window { began_at: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
        let left = WINDOW.saturating_sub(now.duration_since(window.began_at));
        (window.failures > self.failures_max).then(|| left.as_secs().max(1))
    }
}

impl Table {
    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            self.windows.retain(|_, window| now.duration_since(window.began_at) < WINDOW);
        }
    }
}

/// Whoever has an IPv6 address usually has the whole /64.
fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_its_failures_a_minute_an_address_has_to_wait() {
        let throttle = Throttle::new(60, 10);
        let (guesser, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        assert!((0..60).all(|_| throttle.failed(guesser, start).is_none()));
        assert_eq!(throttle.failed(guesser, start), Some(60));
        assert_eq!(throttle.failed(other, start), None);
        assert_eq!(throttle.failed(guesser, start + Duration::from_secs(20)), Some(40));
        assert_eq!(throttle.failed(guesser, start + WINDOW), None);
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let (throttle, start) = (Throttle::new(60, 1_000), Instant::now());
        for number in 0..20_000u32 {
            throttle.failed(IpAddr::from(number.to_be_bytes()), start);
        }
        let len = || throttle.table.lock().unwrap().windows.len();
        assert!(len() <= 1_001);
        throttle.failed(IpAddr::from([200, 0, 0, 1]), start + WINDOW + SWEEP_EVERY);
        assert!(len() <= 2);
    }

    #[test]
    fn an_ipv6_network_is_one_guesser() {
        assert_eq!(subnet("2001:db8::1:2".parse().unwrap()), subnet("2001:db8::ffff:2".parse().unwrap()));
        assert_eq!(subnet("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
