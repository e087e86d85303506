fn main() -> anyhow::Result<()> {
    #[cfg(feature = "probe")]
    {
        let package = aya_build::Package {
            name: "hostdns-probe-ebpf",
            root_dir: "../probe-ebpf",
            features: &["ebpf"],
            no_default_features: false,
        };
        unsafe {
            std::env::set_var(
                "RUSTC_BOOTSTRAP",
                "aya_ebpf,aya_ebpf_bindings,aya_ebpf_cty,aya_log_ebpf,hostdns_probe_ebpf",
            )
        };
        aya_build::build_ebpf([package], aya_build::Toolchain::Custom("debian-bpf"))?;
    }
    Ok(())
}
