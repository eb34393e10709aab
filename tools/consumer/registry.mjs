// A local npm registry with a few packages, as `npm publish` would have uploaded them.
import { execFileSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

/** Packs a folder. Returns its package.json, the tarball and the names of its files. */
export function pack(folder, destination) {
  const printed = execFileSync('npm', ['pack', '--json', '--pack-destination', destination], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [{ filename, files, size }] = JSON.parse(printed.slice(printed.indexOf('[')));
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  return { manifest, tarball: join(destination, filename), files: files.map(({ path }) => path), size };
}

/** The metadata document of a package, which npm reads before it installs the package. */
function packument({ manifest, tarball }, url) {
  const integrity = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`;
  const dist = { tarball: `${url}${encodeURIComponent(manifest.name)}.tgz`, integrity };
  const hasInstallScript = manifest.scripts?.install !== undefined;
  return {
    name: manifest.name,
    'dist-tags': { latest: manifest.version },
    versions: { [manifest.version]: { ...manifest, hasInstallScript, dist } },
  };
}

/**
 * Serves the packages; other names are not found.
 * @returns the registry's address, different each time because npm caches responses, and a function that stops it
 */
export async function serve(packages) {
  const byName = new Map(packages.map((one) => [one.manifest.name, one]));
  const room = `/${randomUUID()}/`;
  let url;
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url.slice(room.length));
    const found = byName.get(path.replace(/\.tgz$/, ''));
    if (!found) response.writeHead(404).end('{}');
    else if (path.endsWith('.tgz')) response.end(readFileSync(found.tarball));
    else response.end(JSON.stringify(packument(found, url)));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${server.address().port}${room}`;
  return { url, stop: () => server.close() };
}
