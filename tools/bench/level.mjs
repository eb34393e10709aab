// node --import tools/bench/level.mjs: the native addon of this process computes at the instruction-set level BLIP2_LEVEL.
import { createRequire } from 'node:module';

const addon = createRequire(import.meta.url)('../../packages/backend-native/build/blip2_native.node');
addon.setInstructionSet(process.env.BLIP2_LEVEL);
