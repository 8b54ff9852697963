//! What the silence around connections costs, in milliseconds: the median and the worst of some runs.
//!
//!     cargo run --example lock_cost -p engine

#![allow(clippy::print_stdout, reason = "it is what an example is for")]
#![allow(clippy::unwrap_used, reason = "it ends where it cannot go on")]

use engine::network::{Flow, Lock};
use std::net::SocketAddr;
use std::time::Instant;

const RUNS: usize = 15;
const NUMBERS: [usize; 4] = [1, 50, 1000, 10_000];

fn flows(number: usize) -> Vec<Flow> {
    let end = |number: usize, port: u16| {
        let [.., high, low] = number.to_be_bytes();
        SocketAddr::new([198, 51, high, low].into(), port)
    };
    (0..number).map(|number| Flow { local: end(0, 80), peer: end(number, 4711) }).collect()
}

fn took_ms<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let done = what();
    (start.elapsed().as_secs_f64() * 1e3, done)
}

fn say(what: &str, mut all: Vec<f64>) {
    all.sort_by(f64::total_cmp);
    println!("{what:<24} {:8.3} {:8.3}", all[all.len() / 2], all[all.len() - 1]);
}

fn main() {
    let (mut opened, mut dropped) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (ms, lock) = took_ms(|| Lock::open().unwrap());
        opened.push(ms);
        dropped.push(took_ms(|| drop(lock)).0);
    }
    say("open", opened);
    say("drop", dropped);
    for number in NUMBERS {
        let (mut held, mut released) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let flows = flows(number);
            let mut lock = Lock::open().unwrap();
            held.push(took_ms(|| lock.hold(&flows).unwrap()).0);
            released.push(took_ms(|| lock.clear().unwrap()).0);
        }
        say(&format!("hold {number}"), held);
        say(&format!("clear {number}"), released);
    }
}
