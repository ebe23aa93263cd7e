int apus_CBPF_placeholder;
