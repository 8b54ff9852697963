//! Features of the processor that a thread has switched on, from `/proc/PID/status`: user shadow
//! stacks (`x86_Thread_features`, Linux 6.6) and linear address masking (`untag_mask`, Linux 6.4).

use super::super::Subject;
use crate::refusal::Refusal;

pub(super) fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
    let refusal = |reason: &str, advice: &str| Refusal {
        object: subject.process(),
        reason: reason.to_owned(),
        advice: advice.to_owned(),
    };
    let shadow_stack = uses_shadow_stack(subject).then(|| {
        refusal(
            "uses shadow stacks",
            "Start it with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK in its environment.",
        )
    });
    let masking = masks_addresses(subject).then(|| {
        refusal(
            "uses linear address masking",
            "Start it without tagged pointers (for example without HWASan).",
        )
    });
    shadow_stack.into_iter().chain(masking).collect()
}

fn uses_shadow_stack(subject: &Subject<'_>) -> bool {
    let features = subject.field("x86_Thread_features").unwrap_or("");
    features.split_whitespace().any(|feature| feature == "shstk")
}

/// All bits count unless some are masked.
fn masks_addresses(subject: &Subject<'_>) -> bool {
    subject.field("untag_mask").is_some_and(|mask| mask != "0xffffffffffffffff")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str) -> Vec<String> {
        let subject = Subject { pid: 7, tid: 7, status };
        examine(&subject).iter().map(|refusal| refusal.reason.clone()).collect()
    }

    #[test]
    fn each_feature_in_use_is_named() {
        let both = "untag_mask:\t0x81ffffffffffffff\nx86_Thread_features:\tshstk wrss \n";
        assert_eq!(seen(both), ["uses shadow stacks", "uses linear address masking"]);
    }

    #[test]
    fn what_is_not_in_use_is_no_obstacle() {
        let none = "untag_mask:\t0xffffffffffffffff\nx86_Thread_features:\t\n\
                    x86_Thread_features_locked:\tshstk wrss \n";
        assert_eq!(seen(none), [""; 0]);
        assert_eq!(seen(""), [""; 0]);
    }
}
