import numpy as np

# Mean sepal length, sepal width, petal length and petal width in cm (Fisher, 1936).
CENTRES = np.array([[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326], [6.588, 2.974, 5.552, 2.026]])
NAMES = np.array([b"setosa", b"versicolor", b"virginica"], dtype=object)


class Iris:
    inputs = {"x": ("FP64", [-1, 4])}
    outputs = {"species": ("BYTES", [-1])}

    def predict(self, batch):
        distances = np.linalg.norm(batch["x"][:, None, :] - CENTRES, axis=2)
        return {"species": NAMES[distances.argmin(axis=1)]}
