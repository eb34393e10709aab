/** Name of the package that holds nothing but the addon, compiled for this platform; src/addon.ts looks for the same. */
export function platformPackage() {
  return `@blip2/backend-native-${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
}

/** Linux with another libc than glibc needs its own binary. */
export function isMusl() {
  return process.platform === 'linux' && glibc() === undefined;
}

/** The running glibc's version, undefined where there is none. */
export function glibc() {
  return process.report.getReport().header.glibcVersionRuntime;
}
