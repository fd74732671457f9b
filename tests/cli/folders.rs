//! Folders of published checkpoints: `mmc` takes the built-in model of their class, in the sizes of their config.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::binaries::{command, model, run};

/// As a hub has it.
fn hub() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16",
        "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": 12,
        "hidden_act": "silu", "hidden_size": 40, "initializer_range": 0.02, "intermediate_size": 72,
        "max_position_embeddings": 64, "max_window_layers": 3, "num_attention_heads": 6, "num_hidden_layers": 3,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 5000,
        "sliding_window": null, "tie_word_embeddings": false, "use_cache": true, "use_sliding_window": false,
        "vocab_size": 99,
    })
}

/// As transformers 5 saves it.
fn saved() -> Value {
    let mut config = hub();
    let keys = config.as_object_mut().expect("an object");
    for gone in ["torch_dtype", "rope_scaling", "rope_theta"] {
        keys.remove(gone);
    }
    keys.insert("dtype".into(), json!("float32"));
    keys.insert("rope_parameters".into(), json!({"rope_theta": 5000.0, "rope_type": "default"}));
    keys.insert("layer_types".into(), json!(["full_attention", "full_attention", "full_attention"]));
    config
}

fn wan() -> Value {
    json!({
        "_class_name": "WanTransformer3DModel", "_diffusers_version": "0.42.1", "attention_head_dim": 12,
        "cross_attn_norm": true, "eps": 1e-6, "ffn_dim": 40, "freq_dim": 16, "in_channels": 4, "num_attention_heads": 3,
        "num_layers": 2, "out_channels": 4, "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024, "text_dim": 20,
    })
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config.as_object_mut().expect("an object").insert(key.into(), value);
    config
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, value.to_string()).expect("written");
}

fn shown(folder: &Path, words: &str) -> String {
    let output = command("mmc").current_dir(folder).args(words.split_whitespace()).output().expect("mmc");
    let code = output.status.code();
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let told: Vec<&str> = told.lines().filter(|line| !line.contains("checked in")).collect();
    format!("$ mmc {words}  [{}]\n{}\n", code.unwrap_or(-1), told.join("\n"))
}

/// The parameters of the model with the same sizes set by hand.
#[test]
fn both_forms_of_a_config_give_the_sizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut by_hand = command("mmc");
    by_hand.arg("manifest").arg(model("qwen3.mm"));
    for set in ["LAYERS=3", "HIDDEN=40", "HEADS=6", "KV_HEADS=2", "HEAD=12", "FFN=72", "VOCAB=99", "TIE=false"] {
        by_hand.args(["--set", set]);
    }
    let by_hand = run(&mut by_hand).expect("lists").stdout;
    for (name, config) in [("hub", hub()), ("saved", saved())] {
        write(&folder.path().join(name).join("config.json"), &config);
        let output = run(command("mmc").current_dir(&folder).args(["manifest", name])).expect("lists");
        assert_eq!(output.stdout, by_hand);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        // The same file of one's own.
        let own =
            run(command("mmc").current_dir(&folder).arg("manifest").arg(model("qwen3.mm")).args(["--config", name]));
        assert_eq!(own.expect("lists").stdout, by_hand);
    }
    // What no shape shows is in the plan, where weights are held to it.
    let ir = run(command("mmc").current_dir(&folder).args(["ir", "hub", "--after", "eval"])).expect("prints").stdout;
    let ir = String::from_utf8_lossy(&ir);
    assert!(ir.contains("0.00001") && !ir.contains("0.000001"), "the config's eps");
}

#[test]
fn pipelines_and_caches_are_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path);
    let snapshot = at("models--A--B/snapshots/0123");
    write(&snapshot.join("transformer/config.json"), &with(wan(), "in_channels", json!(8)));
    write(&snapshot.join("vae/config.json"), &json!({"_class_name": "AutoencoderKLWan"}));
    let index = json!({
        "_class_name": "WanPipeline", "boundary_ratio": null, "expand_timesteps": true,
        "transformer": ["diffusers", "WanTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLWan"],
    });
    write(&snapshot.join("model_index.json"), &with(index, "boundary_ratio", json!(null)));
    fs::create_dir_all(at("models--A--B/refs")).expect("made");
    fs::write(at("models--A--B/refs/main"), "0123\n").expect("written");
    let set = "--set F=2 --set H=4 --set W=4 --set S=3 --task forward";
    insta::assert_snapshot!(shown(folder.path(), &format!("check models--A--B {set} --set OUT=8")));
}

#[test]
fn errors_name_the_key_and_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path).join("config.json");
    write(&at("unknown"), &json!({"architectures": ["Qwen9ForCausalLM"]}));
    write(&at("gelu"), &with(hub(), "hidden_act", json!("gelu")));
    write(&at("yarn"), &with(hub(), "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})));
    write(&at("dynamic"), &with(hub(), "rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0})));
    write(&at("unread"), &with(with(hub(), "soft_cap", json!(30.0)), "router", json!({"top_k": 2})));
    write(&at("text"), &with(hub(), "hidden_size", json!("40")));
    write(&at("half"), &with(hub(), "num_hidden_layers", json!(1.5)));
    write(&at("none"), &json!({"hidden_size": 40}));
    write(&at("list"), &json!([1]));
    fs::create_dir(folder.path().join("empty")).expect("made");
    let words = [
        "check unknown",
        "check gelu",
        "check yarn",
        "check dynamic",
        "check unread",
        "check text",
        "check half",
        "check none",
        "check list",
        "check empty",
        "check gelu --preset tiny",
        "check gelu --config gelu",
        "check wan2.2.mm --config unread",
        "check missing",
        "models qwen9",
    ];
    insta::assert_snapshot!(words.map(|w| shown(folder.path(), w)).join("\n"));
}

/// Weights in a form that nobody reads are refused by its name, and those that are multiplied out need no word.
#[test]
fn quantised_weights_are_called_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for (said, code, told) in [
        (json!({"quant_method": "awq", "bits": 4}), "[1]", "q/config.json: the weights are quantised: awq in 4 bits"),
        (json!({"quant_method": "fp8", "weight_block_size": [128, 128]}), "[0]", "sound"),
    ] {
        write(&folder.path().join("q/config.json"), &with(saved(), "quantization_config", said));
        let found = shown(folder.path(), "check q --set S=8");
        assert!(found.contains(code) && found.contains(told) && !found.contains("warning"), "{found}");
    }
}

/// A text of a config chooses a figure, or is refused with those that would.
#[test]
fn texts_choose_figures() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path).join("config.json");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/cli/models/texts.mm"), folder.path().join("texts.mm"))
        .expect("copied");
    let texts = |key: &str, value: Value| with(json!({"architectures": ["TextsModel"]}), key, value);
    write(&at("none"), &json!({"architectures": ["TextsModel"]}));
    write(&at("linear"), &texts("rope_scaling", json!({"type": "linear", "factor": 4.0})));
    write(&at("mrope"), &with(texts("rope_scaling", json!({"rope_type": "mrope"})), "norm", json!("rms_norm")));
    write(&at("longrope"), &texts("rope_parameters", json!({"rope_type": "longrope"})));
    write(&at("relu"), &texts("hidden_act", json!("relu")));
    write(&at("gelu"), &with(texts("hidden_act", json!("gelu")), "scoring_func", json!("noaux")));
    write(&at("other"), &texts("norm", json!("none")));
    write(&at("picture"), &texts("model_type", json!("i2v")));
    let commands = ["none", "linear", "mrope", "longrope", "relu", "gelu", "other", "picture"];
    let told = commands.map(|name| {
        let words = format!("ir texts.mm --config {name} --task forward --after eval");
        // Of a model, what it computes.
        let shown = shown(folder.path(), &words);
        let computed = ["silu", "erf", "sigmoid", "mul"].map(|op| shown.matches(&format!("= {op}(")).count());
        let [silu, erf, sigmoid, mul] = computed;
        match shown.contains("error") {
            true => shown,
            false => format!(
                "{}\nsilu {silu}, erf {erf}, sigmoid {sigmoid}, mul {mul}\n",
                shown.lines().next().unwrap_or_default()
            ),
        }
    });
    insta::assert_snapshot!(told.join("\n"));
}

/// The original releases of Wan say with a text whether a video begins with a picture.
#[test]
fn original_releases_of_wan_are_obeyed() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = |kind: &str, channels: i64| {
        json!({
            "_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 36, "eps": 1e-6, "ffn_dim": 40,
            "freq_dim": 16, "in_dim": channels, "model_type": kind, "num_heads": 3, "num_layers": 2, "out_dim": 4,
            "text_dim": 20, "text_len": 512,
        })
    };
    for (kind, channels) in [("t2v", 4), ("i2v", 12), ("ti2v", 4), ("s2v", 4)] {
        write(&folder.path().join(kind).join("config.json"), &original(kind, channels));
    }
    let set = "--set F=2 --set H=4 --set W=4 --set S=3 --task forward";
    let commands = ["t2v", "i2v", "ti2v", "s2v", "i2v --set IMAGE=0"].map(|name| format!("check {name} {set}"));
    insta::assert_snapshot!(commands.map(|words| shown(folder.path(), &words)).join("\n"));
}

/// What a task samples with comes from a flag, else the folder, else the model's file; each is printed with its origin.
#[test]
fn settings_of_sampling_come_from_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path);
    let scheduler = json!({
        "_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.33.0", "flow_shift": 3.0, "predict_x0": true,
        "solver_order": 2, "solver_p": null, "use_flow_sigmas": true,
    });
    let index = json!({
        "_class_name": "WanPipeline", "boundary_ratio": 0.75, "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
    });
    for (name, scheduler) in [
        ("unipc", Some(scheduler.clone())),
        ("euler", Some(json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 7.0}))),
        ("ddim", Some(with(scheduler, "_class_name", json!("DDIMScheduler")))),
        ("none", None),
    ] {
        write(&at(name).join("transformer/config.json"), &wan());
        write(&at(name).join("model_index.json"), &index);
        scheduler.into_iter().for_each(|of| write(&at(name).join("scheduler/scheduler_config.json"), &of));
    }
    let set = "--set F=2 --set H=4 --set W=4 --set S=3";
    let shown = [
        format!("check unipc --task sample {set}"),
        format!("check unipc --task sample {set} --set SHIFT=2.5"),
        format!("check euler --task sample {set}"),
        format!("check ddim --task sample {set}"),
        format!("check none --task sample {set}"),
        format!("check unipc --task forward {set}"),
        "check wan2.2.mm --preset ti2v-5b --task sample".into(),
    ]
    .map(|words| shown(folder.path(), &words));
    let told = shown.map(|text| {
        let lines = text.lines().filter(|l| {
            !["feed", "draw", "gives", "graph", "parameters"].iter().any(|w| l.trim_start().starts_with(w))
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
    insta::assert_snapshot!(told.join("\n"));
}
