/** The conformance suite of @blip2/nn, on a software adapter where there is no GPU. */
import { conformanceChecks } from '@blip2/nn/conformance';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, it } from 'vitest';
import { useSoftwareDriver } from '../spec/software';

describe.skipIf(!useSoftwareDriver())('conformance on WebGPU', () => {
  beforeAll(async () => void (await useBackend('webgpu')));
  for (const { name, run } of conformanceChecks()) it(name, run);
});
