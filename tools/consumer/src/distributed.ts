import { launchOf, openWorld } from '@blip2/distributed';

const world = await openWorld({}); // no launcher: alone
if (world.size !== 1 || launchOf({}) !== undefined) throw new Error('expected one process');
await world.close();
console.log('distributed: alone');
