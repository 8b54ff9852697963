//! How this host introduces itself.

use engine::host::Host;
use engine::network::namespace;
use protocol::version::{Hello, HostFacts, Offered, PROTOCOL_MAX, PROTOCOL_MIN};

pub fn hello() -> Result<Hello, engine::Error> {
    let kinds = engine::kinds::ALL.iter().map(|kind| offered(kind.name, kind.version));
    let kinds = kinds.chain([offered(namespace::NAME, namespace::VERSION)]);
    let aspects = engine::aspects::ALL.iter().map(|aspect| offered(aspect.name, aspect.version));
    Ok(Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        agent: concat!("dest-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        kinds: kinds.collect(),
        aspects: aspects.collect(),
        host: facts(Host::look()?),
    })
}

fn offered(name: &str, version: u32) -> Offered {
    Offered { name: name.to_owned(), version }
}

fn facts(host: Host) -> HostFacts {
    let Host { hostname, boot_id, kernel_release, architecture, .. } = host;
    HostFacts {
        hostname,
        boot_id,
        kernel_release,
        architecture,
        page_size: host.page_size,
        cpu_features: host.cpu_features,
        xsave_size: host.xsave_size,
        xsave_features: host.xsave_features,
        features: host.features,
        free_memory_bytes: host.free_memory_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_offers_what_the_engine_makes() {
        let hello = hello().unwrap();
        assert!(hello.kinds.iter().any(|kind| kind.name == "pipe"), "{:?}", hello.kinds);
        assert!(!hello.aspects.is_empty() && hello.host.page_size == 4096);
    }
}
