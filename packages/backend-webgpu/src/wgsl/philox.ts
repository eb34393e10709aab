/** Philox4x32-10, as in rng.ts of @blip2/nn: which elements dropout keeps. `least` is the smallest kept value of 24 random bits. */
export default /* wgsl */ `
fn mul_high(a: u32, b: u32) -> u32 {
  let al = a & 0xffffu;
  let ah = a >> 16u;
  let bl = b & 0xffffu;
  let bh = b >> 16u;
  let middle = ah * bl + ((al * bl) >> 16u);
  let carry = al * bh + (middle & 0xffffu);
  return ah * bh + (middle >> 16u) + (carry >> 16u);
}

fn philox(key: vec2u, block: u32) -> vec4u {
  var x = vec4u(block, 0u, 0u, 0u);
  var k = key;
  for (var round = 0u; round < 10u; round++) {
    let high0 = mul_high(0xd2511f53u, x.x);
    let low0 = 0xd2511f53u * x.x;
    let high1 = mul_high(0xcd9e8d57u, x.z);
    let low1 = 0xcd9e8d57u * x.z;
    x = vec4u(high1 ^ x.y ^ k.x, low1, high0 ^ x.w ^ k.y, low0);
    k += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return x;
}

fn kept(key: vec2u, element: u32, least: u32) -> bool {
  return (philox(key, element / 4u)[element % 4u] >> 8u) >= least;
}
`;
