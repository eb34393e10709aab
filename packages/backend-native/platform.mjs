/** Name of the package with the compiled addon for this platform; the same as in src/addon.ts. */
export function platformPackage() {
  return `@blip2/backend-native-${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
}

/** Linux without glibc needs a different binary. */
export function isMusl() {
  return process.platform === 'linux' && glibc() === undefined;
}

/** Version of the running glibc; undefined without glibc. */
export function glibc() {
  return process.report.getReport().header.glibcVersionRuntime;
}
