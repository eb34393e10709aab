import { registerNativeBackend } from '@blip2/backend-native';
import type { NativeBackendReport } from '@blip2/backend-native';
import { same } from './types.js';

same<ReturnType<typeof registerNativeBackend>, Promise<NativeBackendReport>>(true);
same<NativeBackendReport['threads'], number | undefined>(true);
// @ts-expect-error it takes nothing
void registerNativeBackend('avx2');
