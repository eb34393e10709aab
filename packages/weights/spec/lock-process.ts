/** Takes the lock in argv[2], prints "held" or the error, and ends as argv[3] tells: by itself, or when it is killed. */
import { lockFile } from '../src/lock';

try {
  await lockFile(process.argv[2]!);
  process.stdout.write('held\n');
  if (process.argv[3] === 'stay') setInterval(() => undefined, 1000);
  else process.exit(); // without releasing it
} catch (error) {
  process.stdout.write(`${(error as Error).message}\n`);
}
