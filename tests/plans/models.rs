//! Small models in text form.

/// Three blocks of two matmuls with a norm, a shared scale and a residual; then a mean square.
pub const BLOCKS: &str = r#"
module "blocks"
param "blocks.{}.up" : 3 x f32[F:11, D:7] {"init":{"random":{"normal":{"mean":0.0,"std":0.3}}},"trainable":true}
param "blocks.{}.down" : 3 x f32[D:7, F:11] {"init":{"random":{"normal":{"mean":0.0,"std":0.3}}},"trainable":true}
param "scale" : f32[D:7] {"init":{"random":{"normal":{"mean":1.0,"std":0.1}}},"trainable":true}
param "frozen" : f32[D:7] {"init":{"random":{"normal":{"mean":1.0,"std":0.1}}},"trainable":false}

fn @block(%0: work[B:5, D:7], %1: work[D:7], %2: f32[F:11, D:7], %3: f32[D:7, F:11]) {
  %4 = cast(%2) {"to":"work"} : work[F:11, D:7]
  %5 = cast(%3) {"to":"work"} : work[D:7, F:11]
  %6 = rms_norm(%0) {"dim":"D","eps":1e-6} : work[B:5, D:7]
  %7 = mul(%6, %1) : work[B:5, D:7]
  %8 = matmul(%7, %4) {"spec":"bd,fd->bf","dims":["B","F"]} : work[B:5, F:11]
  %9 = gelu_tanh(%8) : work[B:5, F:11]
  %10 = matmul(%9, %5) {"spec":"bf,df->bd","dims":["B","D"]} : work[B:5, D:7]
  %11 = add(%0, %10) : work[B:5, D:7]
  return %11
}

fn @train(%0: f32[B:5, D:7], %1: 3 x f32[F:11, D:7], %2: 3 x f32[D:7, F:11], %3: f32[D:7], %4: f32[D:7]) {
  %5 = cast(%3) {"to":"work"} : work[D:7]
  %6 = cast(%0) {"to":"work"} : work[B:5, D:7]
  %7 = call @block x3 carry 1 share 1(%6, %5, %1, %2) : work[B:5, D:7]
  %8 = cast(%7) {"to":"f32"} : f32[B:5, D:7]
  %9 = mul(%8, %4) : f32[B:5, D:7]
  %10 = mul(%9, %9) : f32[B:5, D:7]
  %11 = reduce_sum(%10) {"dims":["B","D"]} : f32[]
  return %11
}

program "train" = @train {
  in {"feed":{"name":"x","draw":{"normal":{"mean":0.0,"std":1.0}}}}
  in {"parameter":"blocks.{}.up"}
  in {"parameter":"blocks.{}.down"}
  in {"parameter":"scale"}
  in {"parameter":"frozen"}
  out {"loss":"loss"}
}
"#;

/// Tokens in four chunks through a shared weight, computed again in the backward.
pub const CHUNKS: &str = r#"
module "chunks"
param "embed" : f32[V:13, D:6] {"init":{"random":{"normal":{"mean":0.0,"std":0.5}}},"trainable":true}
param "bias" : f32[T:12] {"init":"zeros","trainable":true}

recompute fn @chunk(%0: f32[], %1: f32[V:13, D:6], %2: f32[T:3, D:6]) {
  %3 = matmul(%2, %1) {"spec":"td,vd->tv","dims":["T","V"]} : f32[T:3, V:13]
  %4 = softmax(%3) {"dim":"V"} : f32[T:3, V:13]
  %5 = mul(%4, %4) : f32[T:3, V:13]
  %6 = reduce_sum(%5) {"dims":["T","V"]} : f32[]
  %7 = add(%0, %6) : f32[]
  return %7
}

fn @train(%0: f32[T:12, D:6], %1: f32[V:13, D:6], %2: f32[T:12]) {
  %3 = add(%0, %2) : f32[T:12, D:6]
  %4 = chunk 4(%3) : 4 x f32[T:3, D:6]
  %5 = constant() {"value":0.0,"dtype":"f32"} : f32[]
  %6 = call @chunk x4 carry 1 share 1(%5, %1, %4) : f32[]
  return %6
}

program "train" = @train {
  in {"feed":{"name":"x","draw":{"normal":{"mean":0.0,"std":1.0}}}}
  in {"parameter":"embed"}
  in {"parameter":"bias"}
  out {"loss":"loss"}
}
"#;

/// Attention with heads of two keys each, norms over the model's whole width, and a cross entropy.
pub const ATTENTION: &str = r#"
module "attention"
param "q" : f32[H:4, E:2, D:6] {"init":{"random":{"normal":{"mean":0.0,"std":0.4}}},"trainable":true}
param "k" : f32[H:4, E:2, D:6] {"init":{"random":{"normal":{"mean":0.0,"std":0.4}}},"trainable":true}
param "v" : f32[H:4, E:2, D:6] {"init":{"random":{"normal":{"mean":0.0,"std":0.4}}},"trainable":true}
param "o" : f32[D:6, H:4, E:2] {"init":{"random":{"normal":{"mean":0.0,"std":0.4}}},"trainable":true}

fn @train(%0: f32[B:2, L:7, D:6], %1: f32[H:4, E:2, D:6], %2: f32[H:4, E:2, D:6], %3: f32[H:4, E:2, D:6], %4: f32[D:6, H:4, E:2]) {
  %5 = rms_norm(%0) {"dim":"D","eps":1e-6} : f32[B:2, L:7, D:6]
  %6 = matmul(%5, %1) {"spec":"bld,hed->blhe","dims":["B","L","H","E"]} : f32[B:2, L:7, H:4, E:2]
  %7 = matmul(%5, %2) {"spec":"bld,hed->blhe","dims":["B","L","H","E"]} : f32[B:2, L:7, H:4, E:2]
  %8 = matmul(%5, %3) {"spec":"bld,hed->blhe","dims":["B","L","H","E"]} : f32[B:2, L:7, H:4, E:2]
  %9 = attention(%6, %7, %8) {"q_len":"L","kv_len":"L","heads":"H","kv_heads":"H","head":"E","causal":true,"scale":0.7} : (f32[B:2, L:7, H:4, E:2], f32[B:2, L:7, H:4])
  %10 = get 0(%9) : f32[B:2, L:7, H:4, E:2]
  %11 = matmul(%10, %4) {"spec":"blhe,dhe->bld","dims":["B","L","D"]} : f32[B:2, L:7, D:6]
  %12 = add(%0, %11) : f32[B:2, L:7, D:6]
  %13 = mul(%12, %12) : f32[B:2, L:7, D:6]
  %14 = reduce_sum(%13) {"dims":["B","L","D"]} : f32[]
  return %14
}

program "train" = @train {
  in {"feed":{"name":"x","draw":{"normal":{"mean":0.0,"std":1.0}}}}
  in {"parameter":"q"}
  in {"parameter":"k"}
  in {"parameter":"v"}
  in {"parameter":"o"}
  out {"loss":"loss"}
}
"#;
