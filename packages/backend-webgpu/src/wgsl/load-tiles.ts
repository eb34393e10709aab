/** How the shaders of products read tiles. They have put_a and put_b, which place a number of a tile in the memory that a group of threads shares. */
export const loadB = /* wgsl */ `
fn load_b(tile: u32, k0: u32, thread: u32) {
  for (var i = 0u; i < TK * TN / 4u / THREADS; i++) {
    let e = thread + i * THREADS;
    let n = select(e % (TN / 4u) * 4u, e / (TK / 4u), B_T);
    let k = select(e / (TN / 4u), e % (TK / 4u) * 4u, B_T);
    let v = b4(k0 + k, tile + n);
    for (var j = 0u; j < 4u; j++) { put_b(k + select(0u, j, B_T), n + select(j, 0u, B_T), v[j]); }
  }
}
`;

/** a is packed (pack.ts). */
export const loadPackedA = /* wgsl */ `
@group(0) @binding(0) var<storage, read> a: array<vec4<f16>>;

fn load_a(tile: u32, k0: u32, thread: u32) {
  for (var i = 0u; i < TK * TM / 4u / THREADS; i++) {
    let e = thread + i * THREADS;
    let m = e / (TK / 4u);
    let k = e % (TK / 4u) * 4u;
    let v = a[((tile + m) * size.padded + k0 + k) / 4u];
    for (var j = 0u; j < 4u; j++) { put_a(m, k + j, Number(v[j])); }
  }
}
`;
