//! A lock that one thread gets before all others.
//!
//! The thread that serves faults and events must never queue behind deliveries: the program is
//! blocked until it comes. A plain mutex is unfair, and a thread that delivers in a loop can keep
//! it for a long time. Here the server waits for at most the delivery that holds the lock and the
//! one that already stands at the door.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Turn<T> {
    /// Deliveries queue here, so that only one of them stands at the door.
    queue: Mutex<()>,
    /// Held while waiting for `inside`, by the one that is next.
    door: Mutex<()>,
    inside: Mutex<T>,
}

#[derive(Debug)]
pub(super) struct Inside<'a, T> {
    // Fields are dropped in their order: the room is free before the queue moves on.
    value: MutexGuard<'a, T>,
    _queue: Option<MutexGuard<'a, ()>>,
}

impl<T> Turn<T> {
    pub(super) fn new(value: T) -> Self {
        Self { queue: Mutex::new(()), door: Mutex::new(()), inside: Mutex::new(value) }
    }

    /// For everybody else.
    pub(super) fn wait_in_line(&self) -> Inside<'_, T> {
        let queue = lock(&self.queue);
        Inside { value: self.enter(), _queue: Some(queue) }
    }

    /// For the one thread that comes first.
    pub(super) fn go_first(&self) -> Inside<'_, T> {
        Inside { value: self.enter(), _queue: None }
    }

    fn enter(&self) -> MutexGuard<'_, T> {
        let _door = lock(&self.door);
        lock(&self.inside)
    }
}

/// A panic under the lock ends in an abandoned migration, not in a second panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> std::ops::Deref for Inside<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> std::ops::DerefMut for Inside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn the_first_thread_waits_for_two_others_at_most() {
        let turn = Turn::new(0_u64);
        let stop = AtomicBool::new(false);
        let each = Duration::from_millis(2);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        *turn.wait_in_line() += 1;
                        let _held = turn.wait_in_line();
                        thread::sleep(each);
                    }
                });
            }
            thread::sleep(each);
            let mut passed: Vec<u64> = (0..20)
                .map(|_| {
                    let before = Instant::now();
                    drop(turn.go_first());
                    u64::try_from(before.elapsed().as_millis()).expect("short")
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            passed.sort_unstable();
            // Two holders are 4 ms; the rest is what a loaded machine adds.
            assert!(passed[10] <= 8, "waited {passed:?} ms");
        });
    }
}
