//! What this host says of itself.

use engine::host::Host;
use engine::network::namespace;
use protocol::version::{Hello, HostFacts, Offered, PROTOCOL_MAX, PROTOCOL_MIN};

pub(crate) fn of_this_host() -> Result<Hello, engine::Error> {
    let Host {
        hostname,
        boot_id,
        kernel_release,
        architecture,
        page_size,
        cpu_features,
        xsave_size,
        xsave_features,
        features,
        free_memory_bytes,
    } = Host::look()?;
    let host = HostFacts {
        hostname,
        boot_id,
        kernel_release,
        architecture,
        page_size,
        cpu_features,
        xsave_size,
        xsave_features,
        features,
        free_memory_bytes,
    };
    let kinds = engine::kinds::ALL.iter().map(|kind| offered(kind.name, kind.version));
    let kinds = kinds.chain([offered(namespace::NAME, namespace::VERSION)]);
    Ok(Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        agent: concat!("migrate ", env!("CARGO_PKG_VERSION")).to_owned(),
        kinds: kinds.collect(),
        aspects: aspects(),
        host,
    })
}

/// Every process has every aspect, if only in its simplest form.
pub(crate) fn aspects() -> Vec<Offered> {
    engine::aspects::ALL.iter().map(|aspect| offered(aspect.name, aspect.version)).collect()
}

fn offered(name: &str, version: u32) -> Offered {
    Offered { name: name.to_owned(), version }
}
