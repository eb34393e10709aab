/** The two types are one and the same; `any` is equal to nothing but itself. */
export type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiled, never run: `same<typeof x, Wanted>(true)` is an error of the compiler where the types differ. */
export declare function same<A, B>(equal: Same<A, B>): void;
