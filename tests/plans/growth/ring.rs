//! Attention whose keys and values go around a ring of ranks.

pub fn train(ranks: usize) -> String {
    let tokens = 2 * ranks;
    let x = format!("f32[L:{tokens}, D:6]");
    let heads = format!("f32[L:{tokens}, H:2, E:4]");
    let rows = format!("f32[L:{tokens}, H:2]");
    let weight = r#"f32[H:2, E:4, D:6] {"init":{"random":{"normal":{"mean":0.0,"std":0.4}}},"trainable":true}"#;
    let product = r#"{"spec":"ld,hed->lhe","dims":["L","H","E"]}"#;
    let attention = r#"{"q_len":"L","kv_len":"L","heads":"H","kv_heads":"H","head":"E","causal":true,"scale":0.5}"#;
    format!(
        r#"
module "ring"
mesh [cp.ring:{ranks}]
hint {{"shard":{{"dim":"L","axes":["cp.ring"]}}}}
param "q" : {weight}
param "k" : {weight}
param "v" : {weight}

fn @train(%0: {x}, %1: f32[H:2, E:4, D:6], %2: f32[H:2, E:4, D:6], %3: f32[H:2, E:4, D:6]) {{
  %4 = matmul(%0, %1) {product} : {heads}
  %5 = matmul(%0, %2) {product} : {heads}
  %6 = matmul(%0, %3) {product} : {heads}
  %7 = attention(%4, %5, %6) {attention} : ({heads}, {rows})
  %8 = get 0(%7) : {heads}
  %9 = mul(%8, %8) : {heads}
  %10 = reduce_sum(%9) {{"dims":["L","H","E"]}} : f32[]
  return %10
}}

program "train" = @train {{
  in {{"feed":{{"name":"x","draw":{{"normal":{{"mean":0.0,"std":1.0}}}}}}}}
  in {{"parameter":"q"}}
  in {{"parameter":"k"}}
  in {{"parameter":"v"}}
  out {{"loss":"loss"}}
}}
"#
    )
}
