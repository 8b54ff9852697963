//! The list of the workloads: a test module that wants one test each takes it from here.

/// Hands the names of those that look the same at any two moments to a macro.
#[macro_export]
macro_rules! every_steady_workload {
    ($each:ident) => {
        $each! {
            blocked,
            clock,
            counter,
            credentials,
            devices,
            dup,
            epoll,
            eventfd,
            fifo,
            icmp,
            interrupted,
            limits_names,
            mappings,
            memfd,
            netlink,
            pipe,
            prefork,
            private_file,
            raw,
            regular_file,
            robust,
            shared_anon,
            shared_file,
            signalfd,
            signals,
            socketpair,
            tcp_listen,
            tcp_states,
            threads,
            timerfd,
            timers,
            tree,
            udp_bound,
            udp_connected,
            udp_queue,
            unix_datagram,
            unix_pair,
            writer,
        }
    };
}

/// Hands the names of all to a macro, in two calls.
#[macro_export]
macro_rules! every_workload {
    ($each:ident) => {
        // Their threads, children, mappings or descriptors are others at every look.
        $each! { churn, unix_flight, unix_listen }
        $crate::every_steady_workload! { $each }
    };
}

#[cfg(test)]
mod tests {
    use crate::workload::SOURCES;
    use std::collections::BTreeSet;

    /// These say something else than the others, and have tests of their own.
    const APART: &[&str] = &["cut_off", "heartbeat", "load", "memory", "tracer", "witness"];

    fn listed() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        macro_rules! list {
            ($($name:ident),* $(,)?) => { $( names.insert(stringify!($name).to_owned()); )* };
        }
        every_workload! { list }
        names
    }

    #[test]
    fn every_source_is_in_the_list_or_has_tests_of_its_own() {
        let files = std::fs::read_dir(SOURCES).unwrap().map(|entry| entry.unwrap().file_name());
        let files = files.filter_map(|name| Some(name.to_str()?.strip_suffix(".c")?.to_owned()));
        let sources: BTreeSet<String> = files.filter(|name| !APART.contains(&&**name)).collect();
        assert_eq!(listed(), sources);
    }
}
