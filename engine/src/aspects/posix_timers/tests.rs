use super::super::trial::{alone, capture, in_thread, restore, run, this_thread};
use super::*;

/// A thousand seconds on the monotonic clock, and a signal that is never sent by then.
fn timer(id: i32) -> Timer {
    Timer {
        id,
        clock: libc::CLOCK_MONOTONIC,
        signal: 40,
        value: 0xdead_beef_0000_0001,
        remaining_ns: 1000 * SECOND_NS,
        interval_ns: 2_500_000_007,
        ..Timer::default()
    }
}

/// Everything but the time that passed since, which must be short.
fn same(image: &Image, expected: &[Timer]) {
    assert_eq!(image.timers.len(), expected.len(), "{image:?}");
    for (timer, expected) in image.timers.iter().zip(expected) {
        let passed_ns = expected.remaining_ns - timer.remaining_ns;
        assert!(passed_ns < 30 * SECOND_NS, "{timer:?}");
        assert_eq!(Timer { remaining_ns: expected.remaining_ns, ..*timer }, *expected);
    }
}

#[test]
fn come_back_with_ids_events_and_remaining_time() {
    alone(|| {
        let tid = this_thread().tid;
        let to_thread = libc::SIGEV_THREAD_ID.cast_unsigned();
        let expected = [
            timer(0),
            Timer { tid, notify: to_thread, clock: libc::CLOCK_REALTIME, ..timer(3) },
            Timer { notify: none(), remaining_ns: 0, interval_ns: 0, ..timer(5) },
        ];
        restore::<PosixTimers>(&Image { timers: expected.into() }).unwrap();
        let image = capture::<PosixTimers>();
        same(&image, &expected);
        run(|batch| {
            for id in [0, 3, 5] {
                batch.call("delete", &Object::Host, libc::SYS_timer_delete, args![id]);
            }
        });
        assert_eq!(capture::<PosixTimers>(), Image::default());
        restore::<PosixTimers>(&image).unwrap();
        same(&capture::<PosixTimers>(), &expected);
    });
}

#[test]
fn get_their_ids_by_counting_on_an_older_kernel() {
    alone(|| {
        let expected = [timer(1), timer(4)];
        run(|batch| {
            create_by_counting(&expected, &Object::Host, batch).unwrap();
            expected.iter().for_each(|timer| timer.arm(&Object::Host, batch));
        });
        same(&capture::<PosixTimers>(), &expected);
    });
}

#[test]
fn with_an_id_out_of_reach_by_counting_are_named() {
    let counted = create_by_counting(&[timer(i32::MAX)], &Object::Host, &mut Batch::new());
    assert!(counted.unwrap_err().source.to_string().contains("2147483647"));
}

#[test]
fn get_a_large_id_where_the_kernel_lets_it_be_chosen() {
    alone(|| {
        if !sys::prctl::restores_timer_ids() {
            return crate::skipped::skip("this kernel has no PR_TIMER_CREATE_RESTORE_IDS");
        }
        let expected = [timer(123_456_789)];
        restore::<PosixTimers>(&Image { timers: expected.into() }).unwrap();
        same(&capture::<PosixTimers>(), &expected);
        let text = std::fs::read_to_string("/proc/self/timers").unwrap();
        assert!(text.starts_with("ID: 123456789\nsignal: 40/deadbeef00000001\n"), "{text}");
    });
}

#[test]
fn on_cpu_clocks_come_back() {
    alone(|| {
        let tid = this_thread().tid;
        let notify = libc::SIGEV_THREAD_ID.cast_unsigned();
        let process = Timer { clock: libc::CLOCK_PROCESS_CPUTIME_ID, ..timer(0) };
        let thread =
            Timer { clock: libc::CLOCK_THREAD_CPUTIME_ID, tid, notify, ..timer(1) };
        restore::<PosixTimers>(&Image { timers: vec![process, thread] }).unwrap();
        let image = capture::<PosixTimers>();
        // The kernel has its own numbers for them.
        let clocks: Vec<_> = image.timers.iter().map(|timer| timer.clock).collect();
        assert_eq!(clocks, [-6, clock::of_thread(tid)]);
        run(|batch| {
            for id in [0, 1] {
                batch.call("delete", &Object::Host, libc::SYS_timer_delete, args![id]);
            }
        });
        // From another thread, whose own clock it must not become.
        in_thread(|| restore::<PosixTimers>(&image).unwrap());
        let back = capture::<PosixTimers>();
        same(&back, &image.timers);
    });
}

#[test]
fn that_make_no_sense_are_an_error() {
    alone(|| {
        assert!(restore::<PosixTimers>(&Image { timers: vec![timer(2), timer(2)] }).is_err());
        assert!(restore::<PosixTimers>(&Image { timers: vec![timer(-1)] }).is_err());
    });
}
